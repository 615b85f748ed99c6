"""The command line: `main` reads it, `explore` and `evaluation` hold verbs, `output` prints, `words` checks words."""
