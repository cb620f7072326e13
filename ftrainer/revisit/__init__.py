"""What one does with a trained run: judge it, export it, prove that it resumes, see where a step went wrong."""
