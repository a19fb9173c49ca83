"""Published weights, brought into our modules: one file a source, each a table of key, path and transform."""
