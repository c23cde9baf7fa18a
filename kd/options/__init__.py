"""Options: what each one may be, declared once, as the annotation of the parameter that takes it."""
