"""The targets, by name."""

from collections.abc import Mapping

from tests.fuzz.target import Target
from tests.fuzz.targets.http import HttpTarget
from tests.fuzz.targets.query import QueryTarget
from tests.fuzz.targets.reply import ReplyTarget
from tests.fuzz.targets.settings import SettingsTarget
from tests.fuzz.targets.sockets import ChannelTarget, RespTarget, UpstreamTarget
from tests.fuzz.targets.tcp import TcpTarget
from tests.fuzz.targets.texts import EventTarget, NameTarget
from tests.fuzz.targets.value import ValueTarget

_IN_MEMORY = (QueryTarget, ReplyTarget, ValueTarget, NameTarget, EventTarget, HttpTarget, SettingsTarget, TcpTarget)
_OVER_SOCKETS = (UpstreamTarget, RespTarget, ChannelTarget)
TARGETS: Mapping[str, type[Target]] = {target.name: target for target in (*_IN_MEMORY, *_OVER_SOCKETS)}
