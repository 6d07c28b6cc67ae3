"""Documents: PDFs and images, read page by page by a detection model."""
