"""Every private or unstable third-party API, behind one small module each."""
