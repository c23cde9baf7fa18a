"""Write classifiers in forms that run without kd's classes, and read them."""
