"""Who devices are: their credentials, and the doormen who ask for them."""
