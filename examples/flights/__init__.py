"""`make demo` imports a month or a year of flights into tables with foreign keys."""
