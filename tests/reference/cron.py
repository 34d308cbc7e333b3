"""Which instants a cron expression means in a time zone: an independent reference, minute by minute.

Standard library only; shares no code with the program. The expression is read the way Vixie cron's C code reads it, one
character at a time; every local minute of the window is looked at; the zone's data is Python's (zoneinfo, which takes
the system's or the tzdata package's).

stdin: one JSON document a line: {"zone", "expression", "start", "end", "probes"}, instants in seconds since 1970.
stdout: one JSON document a line: [[previous or null, next or null] for each probe], within the window; without probes
every slot in it; or "wrong".
"""

import bisect
import calendar
import json
import re
import sys
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()
LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
NICKNAMES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}


class Wrong(Exception):
    pass


class Field:
    """get_list, get_range and get_number of Vixie cron's entry.c, and the days that it does not know."""

    def __init__(self, text, place):
        # What many know from elsewhere: L, the last day; 5#2 and 5L, the second and the last Friday.
        self.last, self.nth = False, set()
        rest = [part for part in text.split(",") if not self.is_special(part, place)]
        self.all_special = not rest
        self.text, self.at, self.place = ",".join(rest) + "\0", 0, place
        self.low, self.high = LIMITS[place]
        self.bits = set()
        self.is_star = text.startswith("*")
        if not self.all_special:
            self.get_list()

    def is_special(self, part, place):
        lower = part.lower()
        if place == 2 and lower == "l":
            self.last = True
            return True
        found = re.fullmatch(r"([0-7]|[a-z]{3})(?:#([1-5])|l)", lower) if place == 4 else None
        if not found or not (found[1].isdigit() or found[1] in DAYS):
            return False
        day = int(found[1]) % 7 if found[1].isdigit() else DAYS.index(found[1])
        self.nth.add((day, int(found[2] or 0)))
        return True

    def peek(self):
        return self.text[self.at]

    def get_list(self):
        while True:
            self.get_range()
            if self.peek() == ",":
                self.at += 1
            elif self.peek() == "\0":
                return
            else:
                raise Wrong

    def get_range(self):
        if self.peek() == "*":
            self.at += 1
            first, last = self.low, self.high
        else:
            first = last = self.get_number(False)
            if self.peek() != "-":
                self.bits.add(first)
                return
            self.at += 1
            last = self.get_number(True)
        step = 1
        if self.peek() == "/":
            self.at += 1
            step = self.get_number(None)
            if step == 0:
                raise Wrong
        if first > last:
            raise Wrong
        value = first
        while value <= last:
            self.bits.add(value)
            value += step

    def get_number(self, ends_range):
        word = ""
        while self.peek().isalnum():
            word += self.peek()
            self.at += 1
        if word.isdigit() and word.isascii():
            value = int(word)
        elif ends_range is not None and self.place == 3 and word.lower() in MONTHS:
            value = MONTHS.index(word.lower()) + 1
        elif ends_range is not None and self.place == 4 and word.lower() in DAYS:
            value = DAYS.index(word.lower())
            # The one thing beyond Vixie cron, where "fri-sun" is an error.
            if value == 0 and ends_range:
                value = 7
        else:
            raise Wrong
        if ends_range is not None and not self.low <= value <= self.high:
            raise Wrong
        return value


class Expression:
    def __init__(self, text):
        fields = NICKNAMES.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise Wrong
        read = [Field(field, place) for place, field in enumerate(fields)]
        self.minutes, self.hours, self.days, self.months, self.weekdays = (field.bits for field in read)
        if self.weekdays & {0, 7}:
            self.weekdays |= {0, 7}
        self.stars = read[2].is_star or read[4].is_star
        self.last, self.nth = read[2].last, read[4].nth

    def is_day(self, date):
        if date.month not in self.months:
            return False
        length = calendar.monthrange(date.year, date.month)[1]
        day = date.day in self.days or (self.last and date.day == length)
        places = {(date.isoweekday() % 7, (date.day + 6) // 7)}
        if date.day + 7 > length:
            places.add((date.isoweekday() % 7, 0))
        weekday = date.isoweekday() in self.weekdays or bool(places & self.nth)
        return (day and weekday) if self.stars else (day or weekday)


@lru_cache(maxsize=None)
def zone(name):
    return ZoneInfo(name)


def to_utc(naive, tz):
    """The instant of a slot: its first occurrence, or the first instant after the gap it lies in."""
    first = naive.replace(tzinfo=tz, fold=0).astimezone(timezone.utc)
    if first.astimezone(tz).replace(tzinfo=None) == naive:
        return first
    # Python's way to read a time in a gap with fold=1 gives an instant before the gap: walk on from there.
    at = naive.replace(tzinfo=tz, fold=1).astimezone(timezone.utc)
    assert at.astimezone(tz).replace(tzinfo=None) < naive
    while at.astimezone(tz).replace(tzinfo=None) < naive:
        at += timedelta(minutes=1)
    return at


def slots(expression, tz, start, end):
    # Two days more on each side: a slot in a gap comes later than it reads.
    day = datetime.fromtimestamp(start, timezone.utc).date() - timedelta(days=3)
    last = datetime.fromtimestamp(end, timezone.utc).date() + timedelta(days=3)
    found = set()
    times = [(hour, minute) for hour in range(24) for minute in range(60)
             if hour in expression.hours and minute in expression.minutes]
    while day <= last:
        if expression.is_day(day):
            for hour, minute in times:
                naive = datetime(day.year, day.month, day.day, hour, minute)
                found.add(int(to_utc(naive, tz).timestamp()))
        day += timedelta(days=1)
    return sorted(slot for slot in found if start <= slot <= end)


def answer(case):
    try:
        expression = Expression(case["expression"])
    except Wrong:
        return "wrong"
    found = slots(expression, zone(case["zone"]), case["start"], case["end"])
    if "probes" not in case:
        return found
    answers = []
    for probe in case["probes"]:
        place = bisect.bisect_right(found, probe)
        answers.append([found[place - 1] if place else None, found[place] if place < len(found) else None])
    return answers


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))))
