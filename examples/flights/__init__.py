"""`make demo`: a year of flights, or a month of it, into tables with foreign keys."""
