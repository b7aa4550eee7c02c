"""Methods in exact arithmetic, written without a look at the code that runs."""
