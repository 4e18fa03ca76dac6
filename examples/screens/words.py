"""What is written on the pages. A part of the names is never trained, and scored apart."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

_HELD_OUT_ONE_IN = 9


def is_held_out(name: str) -> bool:
    """Whether a name is kept for the test; decided by its letters, so that everyone keeps the same ones."""
    return zlib.crc32(name.lower().encode()) % _HELD_OUT_ONE_IN == 0


ACTIONS = (
    "Save", "Cancel", "Delete", "Apply", "OK", "Close", "Open", "Edit", "Add", "Remove", "Submit", "Send", "Reply", "Forward", "Archive",
    "Search", "Filter", "Sort", "Export", "Import", "Download", "Upload", "Share", "Copy", "Paste", "Cut", "Undo", "Redo", "Print",
    "Refresh", "Reset", "Next", "Back", "Previous", "Continue", "Finish", "Start", "Stop", "Pause", "Resume", "Install", "Update",
    "Connect", "Disconnect", "Sign in", "Sign out", "Register", "Subscribe", "Follow", "Buy now", "Add to cart", "Checkout", "Pay",
    "View", "Details", "Preview", "Publish", "Discard", "Rename", "Move", "Duplicate", "Help", "Learn more", "Accept", "Decline",
    "Invite", "Join", "Leave", "Create", "New folder", "New file", "Select all", "Clear", "Confirm", "Retry", "Skip", "Done", "Yes", "No",
    "Try again", "Book", "Order", "Compare", "Save as", "Load more", "Show all", "Log out", "Run", "Build", "Test", "Deploy",
)  # fmt: skip
FIELDS = (
    "Name", "First name", "Last name", "Email", "Password", "Phone", "Address", "City", "Country", "Postcode", "Company", "Website",
    "Title", "Subject", "Message", "Comment", "Description", "Username", "Date", "Time", "Amount", "Quantity", "Price", "Code", "Street",
    "State", "Birthday", "Department", "Position", "Notes", "Keywords", "Category", "Language", "Currency", "Card number", "Search term",
    "From", "To", "Budget", "Reference", "Account", "Serial number", "Location", "Nickname", "Bio",
)  # fmt: skip
OPTIONS = (
    "Dark mode", "Notifications", "Sound", "Vibration", "Bluetooth", "Airplane mode", "Location", "Auto save", "Spell check", "Updates",
    "Newsletter", "Remember me", "Show hidden files", "Compact view", "Large text", "High contrast", "Backups", "Sync", "Privacy mode",
    "Two factor login", "Public profile", "Show email", "Cookies", "Analytics", "Beta features", "Wi-Fi", "Power saving", "Screen lock",
    "Captions", "Autoplay", "Animations", "Grid lines", "Line numbers", "Word wrap", "Offline mode", "Read receipts", "Gift wrap",
    "Express delivery", "Terms and conditions", "Weekly report", "Debug mode", "Mute", "Night light", "Roaming", "Hotspot", "Fast charging",
)  # fmt: skip
CHOICES = (
    "Small", "Medium", "Large", "Daily", "Weekly", "Monthly", "Yearly", "English", "German", "French", "Spanish", "Italian", "Light",
    "Dark", "System", "Low", "Normal", "High", "Public", "Private", "Friends", "Standard", "Express", "Economy", "Card", "Cash", "Invoice",
    "Left", "Center", "Right", "Red", "Green", "Blue", "Basic", "Premium", "Business", "Morning", "Evening", "Always", "Never", "Ask me",
)  # fmt: skip
LEVELS = (
    "Volume", "Brightness", "Contrast", "Speed", "Zoom", "Opacity", "Bass", "Treble", "Quality", "Temperature", "Storage", "Battery",
    "Progress", "Upload", "Memory", "Disk", "Level", "Size", "Balance", "Sharpness",
)  # fmt: skip
SECTIONS = (
    "Home", "Inbox", "Settings", "Profile", "Dashboard", "Reports", "Users", "Products", "Orders", "Messages", "Calendar", "Files",
    "Photos", "Music", "Videos", "Favorites", "Recent", "Trash", "Drafts", "Sent", "Spam", "General", "Account", "Security", "Display",
    "Network", "Storage", "Overview", "Activity", "History", "Billing", "Team", "Projects", "Tasks", "Statistics", "Contacts", "About",
    "Downloads", "Documents", "Pictures", "Tools", "Window", "Format", "Insert", "Layout", "Review", "Support", "Offers", "Members",
)  # fmt: skip
FIRST_NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jonas", "Kim", "Leo", "Mia", "Noah", "Olivia", "Paul",
    "Quinn", "Rosa", "Sam", "Tina", "Umar", "Vera", "Will", "Yara", "Zoe", "Lena", "Max", "Nina", "Omar", "Petra",
)  # fmt: skip
LAST_NAMES = (
    "Adams", "Baker", "Carter", "Diaz", "Evans", "Fischer", "Garcia", "Huber", "Ito", "Jensen", "Khan", "Lopez", "Meyer", "Nguyen",
    "Olsen", "Park", "Rossi", "Silva", "Taylor", "Weber", "Young", "Novak", "Brown", "Lee",
)  # fmt: skip
THINGS = (
    "Lamp", "Chair", "Table", "Sofa", "Mug", "Bottle", "Backpack", "Shoes", "Jacket", "Shirt", "Watch", "Phone case", "Keyboard", "Mouse",
    "Monitor", "Camera", "Guitar", "Bicycle", "Tent", "Pillow", "Blanket", "Teapot", "Notebook", "Pencil set", "Umbrella", "Helmet",
    "Candle", "Clock", "Mirror", "Plant pot", "Headphones", "Speaker", "Toaster", "Kettle", "Scarf", "Gloves",
)  # fmt: skip
FILE_STEMS = (
    "report", "invoice", "budget", "notes", "photo", "letter", "plan", "summary", "contract", "draft", "scan", "backup", "readme", "song",
    "slides", "meeting", "agenda", "logo", "map", "recipe", "thesis", "data", "results", "travel",
)  # fmt: skip
ENDINGS = ("pdf", "docx", "xlsx", "png", "jpg", "txt", "zip", "mp3", "csv", "pptx")
SENTENCES = (
    "Your changes have been saved.", "Are you sure?", "This cannot be undone.", "Please check your input.", "New version available.",
    "Choose a plan that fits.", "We never share your data.", "Last edited yesterday.", "3 items selected", "Updated 5 minutes ago",
    "All fields are required.", "Free delivery over 50 euros", "No results found.", "Connection is secure.", "Enter a valid code.",
)  # fmt: skip

_CONSONANTS, _VOWELS = "bcdfghklmnprstvwz", "aeiou"


class Names:
    """Draws names, none of them twice on a page.

    Args:
        rng: source of chance.
        held_out: allow the names that are kept for the test; training uses False.
    """

    def __init__(self, rng: np.random.Generator, held_out: bool) -> None:
        self.rng, self.held_out, self.taken = rng, held_out, set[str]()

    def of(self, names: Sequence[str], made_up: float = 0.08) -> str:
        """One of some names; with a small chance a word that nobody has seen before, so that letters are
        worth reading.
        """
        for _ in range(40):
            name = (
                self._made_up() if self.rng.random() < made_up else names[int(self.rng.integers(len(names)))]
            )
            if name not in self.taken and (self.held_out or not is_held_out(name)):
                break
        self.taken.add(name)
        return name

    def person(self) -> str:
        """First and last name."""
        return f"{self.of(FIRST_NAMES)} {self.of(LAST_NAMES)}"

    def file(self) -> str:
        """Name of a file."""
        stem = self.of(FILE_STEMS)
        number = (
            f"{self._pick(('-', '_', ''))}{int(self.rng.integers(1, 100))}" if self.rng.random() < 0.6 else ""
        )
        return f"{stem}{number}.{self._pick(ENDINGS)}"

    def thing(self) -> str:
        """Name of a product."""
        return self.of(THINGS)

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _made_up(self) -> str:
        letters = [self._pick(_CONSONANTS) + self._pick(_VOWELS) for _ in range(int(self.rng.integers(1, 4)))]
        return "".join(letters).capitalize() + (self._pick(_CONSONANTS) if self.rng.random() < 0.6 else "")
