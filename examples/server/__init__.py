"""Limited servers, each for other needs, and a demo that drives one of them."""
