"""Names of icons: what people call them, and which one the class, address or title of an element speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_TABLE = """
search: magnifying glass, magnifier | search, magnify, magnifying-glass, magnifier
heart: favorite, like | heart, favorite
star: | star
trash: bin, delete, rubbish, garbage | trash, trash-2, trash-can, delete, delete-bin, bin
gear: settings, cog | gear, settings, cog, settings-3
house: home | house, home, home-2
envelope: mail, email | envelope, mail, email
bell: notification, notifications | bell, notifications, notification
person: user, profile, account | person, user, account, profile
people: users, group, team | people, users, group, team
plus: add | plus, add, plus-lg
minus: | minus, remove, dash-lg, subtract, dash
cross: close, x | x-lg, x, close, xmark, times
check: tick, done, checkmark | check-lg, check, done, tick
download: | download, file-download, download-2, download-simple
upload: | upload, file-upload, upload-2, upload-simple
lock: padlock | lock, lock-2
unlock: open lock | unlock, lock-open, lock-unlock
pencil: edit | pencil, edit, pencil-simple
calendar: | calendar, calendar-month, calendar-today
clock: time | clock, schedule, time
eye: view, show | eye, visibility
hidden eye: hide | eye-slash, eye-off, visibility-off
cart: shopping cart, basket | cart, shopping-cart, basket
bag: shopping bag | bag, shopping-bag, handbag
camera: | camera, photo-camera, camera-alt
picture: image, photo | image, photo, picture
play: | play, play-arrow, player-play
pause: | pause, player-pause
stop: | stop, player-stop
filter: funnel | funnel, filter, filter-alt
share: | share, share-2, share-network
copy: duplicate | copy, content-copy, files, file-copy
link: chain | link, link-45deg, link-2
menu: hamburger | list, menu, menu-2, menu-line
dots: more, ellipsis, three dots | three-dots, dots, more-horiz, more, ellipsis, dots-three
left arrow: back | arrow-left, arrow-back
right arrow: forward | arrow-right, arrow-forward
up arrow: | arrow-up, arrow-upward
down arrow: | arrow-down, arrow-downward
refresh: reload, sync | arrow-clockwise, refresh, refresh-cw, reload, arrow-clockwise
undo: | undo, arrow-back-up, undo-2, arrow-counterclockwise, arrow-u-up-left
floppy disk: save, disk | floppy, save, device-floppy, floppy-disk
printer: print | printer, print
folder: | folder, folder-2
file: document, page | file-earmark, file, insert-drive-file, file-2
paperclip: attachment, attach | paperclip, attach-file, attachment, attachment-2
paper plane: send | send, paper-plane, paper-plane-tilt, send-plane
phone: telephone, call | telephone, phone, call
microphone: mic | mic, microphone
speaker: volume, sound | volume-up, volume, volume-2, speaker-high
video camera: video | camera-video, video, videocam, vidicon, video-camera
note: music | music-note-beamed, music, music-note, music-2, music-notes
map: | map, map-2, map-trifold
pin: location, marker, place | geo-alt, map-pin, place, location-on
globe: world, language | globe, world, language, public, globe-simple
wifi: | wifi, wifi-high
battery: | battery-full, battery, battery-4
sun: light mode | sun, light-mode, wb-sunny
moon: dark mode | moon, dark-mode, nightlight, moon-stars
cloud: | cloud, cloudy
flame: fire | fire, flame, local-fire-department
bolt: lightning | lightning, bolt, zap, flashlight, flash-on
gift: present | gift, card-giftcard, gift-2
tag: label, price tag | tag, sell, price-tag-3, local-offer
bookmark: | bookmark, bookmark-simple
flag: | flag
thumbs up: | hand-thumbs-up, thumb-up, thumbs-up
thumbs down: | hand-thumbs-down, thumb-down, thumbs-down
speech bubble: comment, chat, message | chat, message, chat-bubble, message-circle, message-square, chat-1, chat-circle
info: information | info-circle, info, information
question mark: help, question | question-circle, help, circle-help, question, help-circle, circle-question-mark
warning: alert | exclamation-triangle, warning, alert-triangle, alert, triangle-alert
shield: security | shield, security
key: | key, vpn-key, key-2
credit card: card, payment | credit-card, bank-card, credit-card-alt
wallet: | wallet, account-balance-wallet, wallet-2
bar chart: chart, statistics | bar-chart, chart-bar, bar-chart-2, chart-column
pie chart: | pie-chart, chart-pie
grid: tiles, apps | grid, layout-grid, grid-view, apps, grid-four
truck: delivery | truck, local-shipping
airplane: plane, flight | airplane, plane, flight
car: | car-front, car, directions-car
bicycle: bike | bicycle, bike, directions-bike, riding
book: | book, menu-book, book-2
cup: coffee | cup-hot, coffee, cup, local-cafe
scissors: cut | scissors, content-cut, scissors-cut
wrench: tool, tools | wrench, tool, build, tools
code: | code-slash, code, code-s
terminal: console | terminal, terminal-2, terminal-box
database: | database, storage
laptop: computer | laptop, device-laptop, computer
mobile phone: mobile, smartphone | phone-portrait, device-mobile, smartphone
headphones: | headphones, headset
puzzle: extension, plugin | puzzle, extension, puzzle-piece
palette: colors | palette
light bulb: idea, bulb | lightbulb, bulb
trophy: award, cup of the winner | trophy, emoji-events
umbrella: | umbrella
building: office | building, apartment, business, building-2
tree: | tree, park, plant, trees
bug: | bug, bug-report
robot: | robot, smart-toy, bot
rocket: | rocket, rocket-launch
zoom in: | zoom-in, magnifying-glass-plus
zoom out: | zoom-out, magnifying-glass-minus
full screen: expand, maximize | fullscreen, arrows-fullscreen, maximize, maximize-2, arrows-out
exit: log out, sign out, logout | box-arrow-right, logout, log-out, logout-box-r, sign-out
enter: log in, sign in, login | box-arrow-in-right, login, log-in, login-box, sign-in
fingerprint: | fingerprint
QR code: | qr-code, qrcode, qr-code-scan
crown: | crown, vip-crown
hourglass: | hourglass, hourglass-empty, hourglass-2
target: | bullseye, target, crosshair
paint brush: brush | brush, paintbrush, paint-brush
"""


def _read_table() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    rows = {}
    for line in _TABLE.strip().splitlines():
        names, spellings = line.split(" | ")
        main, _, others = names.partition(":")
        synonyms = tuple(name.strip() for name in others.split(",") if name.strip())
        stems = tuple(stem.strip() for stem in spellings.split(","))
        rows[main] = (synonyms, stems)
    return rows


_ROWS = _read_table()

SYNONYMS: dict[str, tuple[str, ...]] = {name: synonyms for name, (synonyms, _) in _ROWS.items()}
"""Names of the icons, each with what else they are called."""

STEMS: dict[str, tuple[str, ...]] = {name: stems for name, (_, stems) in _ROWS.items()}
"""How icon sets spell the name of each icon in files and classes, the commonest first."""

_BY_STEM = {stem: name for name, stems in reversed(STEMS.items()) for stem in reversed(stems)}
_BY_WORD = {word.lower(): name for name, synonyms in reversed(SYNONYMS.items()) for word in (*synonyms, name)}
_PREFIX = re.compile(
    r"^(bi|fa|fas|far|fab|fa-solid|fa-regular|mdi|ti|ri|ph|icon|icons|lucide|ic|glyphicon|uil|la|bx|feather|octicon)[-_]"
)
_STYLE = re.compile(
    r"[-_](fill|filled|line|outline|outlined|regular|bold|solid|round|rounded|sharp|thin|light|duotone|24px|\d+|alt)$"
)


def words_for(icon: str) -> tuple[str, ...]:
    """All names of an icon, its own first."""
    return (icon, *SYNONYMS[icon])


def icon_of(hints: Iterable[str]) -> str | None:
    """The icon that the first telling hint names.

    Args:
        hints: classes, file names, fragments of addresses, titles or ligatures, the surest first.

    Returns:
        A key of `SYNONYMS`, or None where no hint is known.

    >>> icon_of(["btn", "bi-trash-fill"])
    'trash'
    """
    for hint in hints:
        if len(hint.strip()) < 2:
            continue  # a class "x" is anything
        for stem in _spellings(hint):
            if stem in _BY_STEM:
                return _BY_STEM[stem]
            words = stem.replace("-", " ")
            if words in _BY_WORD:
                return _BY_WORD[words]
    return None


def _spellings(hint: str) -> Sequence[str]:
    """A hint as it is, then without the prefix of its set and the words of its style."""
    stem = hint.strip().lower().replace("_", "-").replace(" ", "-")
    stem = stem.rsplit("/", 1)[-1].split("?")[0]  # of an address, the name of the file
    stem = stem.removesuffix(".svg").removesuffix(".png").removeprefix("#")
    bare = _PREFIX.sub("", stem)
    spellings = [stem, bare]
    while (shorter := _STYLE.sub("", bare)) != bare:
        bare = shorter
        spellings.append(bare)
    return spellings
