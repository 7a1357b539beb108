"""One training loop a file: where ltjax goes in each of them."""
