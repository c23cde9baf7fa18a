"""Which student and method to try for given data, teacher and limits: rules, and what each costs here."""
