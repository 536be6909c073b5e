"""The service: a picture and its text in, a verdict out, over HTTP on a closed network.

    request --intake--> ScoreRequest --Service--> meme --Resident.prepare--> rows --Engine--> scores
                                                                 one thread, batches |
    answer <--structs-- verdict <--policy-- calibrated <-----------------------------+--> audit log, metrics

`engine`, `models` and `service` know nothing of HTTP; `app` and `addresses` know nothing of models. What a
stranger sends is checked in `intake`, `pictures` and `fetch`. `replicated` moves the engine to Ray Serve.
Needs the extra `serve`.
"""

from diptych.serve.audit import AuditLog, Verified, verify
from diptych.serve.engine import Engine, Ticket
from diptych.serve.limits import Limits
from diptych.serve.models import Resident, Setup, load_model
from diptych.serve.problems import Problem
from diptych.serve.service import Service
from diptych.serve.setup import Options, build

__all__ = [
    "AuditLog",
    "Engine",
    "Limits",
    "Options",
    "Problem",
    "Resident",
    "Service",
    "Setup",
    "Ticket",
    "Verified",
    "build",
    "load_model",
    "verify",
]
