"""What both sides know of pages: how many and how large they may be, which files hold them, and how failures are
told."""

from __future__ import annotations

MAX_PAGES = 2_000
MAX_PIXELS = 25_000_000  # of a page's image; what would be larger is rendered at a lower resolution
MAX_SIDE = 16_384
PIECE_BYTES = 3 << 20  # of pixels in one message
DRAWN_PIECE_BYTES = 256 << 10  # the same, of an image that a web process asks for
LABEL_CHARS = 40
MOST_DRAWN = 1_000  # boxes on one page
MOST_CORNERS = 100  # of one of their outlines, as it is drawn

PDF = "application/pdf"
MEDIA_TYPES = (PDF, "image/png", "image/jpeg", "image/tiff", "image/webp")

# the codes of a ModelError over a document
ENCRYPTED = "encrypted_document"
UNREADABLE = "unreadable_document"
EMPTY = "empty_document"
TOO_MANY = "too_many_pages"
TOO_LARGE = "page_too_large"
