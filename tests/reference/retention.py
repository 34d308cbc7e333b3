"""Which backups stay: an independent reference for the rules of retention.

Standard library only; shares no code with the program, and goes about it the other way round: it asks of each backup
whether a rule keeps it, instead of letting each rule pick.

stdin: one JSON document a line: {"policy", "backups": [{"id", "created", "trusted", "pinned", "proved"}], "now", "force", "pace"}, in seconds.
stdout: one JSON document a line: [[id, keep, why]], the newest first; why is one of rule, gap, none, half, future,
stranger.
"""

import json
import sys
from datetime import datetime, timezone


def periods(seconds):
    at = datetime.fromtimestamp(seconds, timezone.utc)
    year, week, _ = at.isocalendar()
    return {
        "keep_daily": at.toordinal(),
        "keep_weekly": (year, week),
        "keep_monthly": (at.year, at.month),
        "keep_yearly": at.year,
    }


def is_kept(backup, good, policy):
    newer = [other for other in good if (other["created"], other["id"]) > (backup["created"], backup["id"])]
    if not policy or not newer or backup["pinned"] or backup["proved"]:
        return True
    latest = max(other["created"] for other in good)
    if "retention_days" in policy and latest - backup["created"] <= policy["retention_days"] * 86400:
        return True
    if "keep_last" in policy and len(newer) < policy["keep_last"]:
        return True
    for rule in ("keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"):
        if rule not in policy:
            continue
        own = periods(backup["created"])[rule]
        later = {periods(other["created"])[rule] for other in newer}
        # The newest of its period, and fewer periods than the rule keeps have a backup later than it.
        if own not in later and len(later) < policy[rule]:
            return True
    return False


def is_kept_by_gap(backup, good, case, policy):
    """Whether it is young enough by the days on which the backups after it were made: of a longer gap only a part counts."""
    if case["force"] or "retention_days" not in policy:
        return False
    window = policy["retention_days"] * 86400
    most = max(2 * case["pace"], window // 10)
    made = sorted({other["created"] for other in good if other["created"] >= backup["created"]})
    return sum(min(b - a, most) for a, b in zip(made, made[1:])) <= window


def answer(case):
    policy = {rule: count for rule, count in case["policy"].items() if count is not None}
    now = case["now"]
    good = [b for b in case["backups"] if b["trusted"] and b["created"] <= now + 300]
    by_gap = [b for b in good if not is_kept(b, good, policy) and is_kept_by_gap(b, good, case, policy)]
    gone = [b for b in good if not is_kept(b, good, policy) and b not in by_gap]
    gone.sort(key=lambda b: (b["created"], b["id"]))
    spared = [] if case["force"] else gone[len(good) // 2:]
    answers = []
    for b in sorted(case["backups"], key=lambda b: (b["created"], b["id"]), reverse=True):
        if b["created"] > now + 300:
            answers.append([b["id"], True, "future"])
        elif not b["trusted"]:
            answers.append([b["id"], True, "stranger"])
        elif b in spared:
            answers.append([b["id"], True, "half"])
        elif b in by_gap:
            answers.append([b["id"], True, "gap"])
        elif b in gone:
            answers.append([b["id"], False, "none"])
        else:
            answers.append([b["id"], True, "rule"])
    return answers


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))))
