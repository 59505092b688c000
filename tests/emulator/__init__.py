"""An emulator of the Hugging Face Hub: the genuine clients talk to it over loopback, through HF_ENDPOINT."""
