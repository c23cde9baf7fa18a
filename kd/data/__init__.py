"""Read texts, split, tokenise and batch them."""
