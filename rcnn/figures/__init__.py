"""The paper's figures 3 to 5, and two of learning and classes: a module each, whose picture is drawn from its numbers alone."""
