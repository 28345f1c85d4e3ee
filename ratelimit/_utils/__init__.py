"""Small general tools without a word of rate limiting; every package may import them."""
