"""Header words of exports, without case, accents, blanks and signs, by what the column holds."""

from __future__ import annotations

import re
from collections.abc import Mapping

from connectors.historian.quality import Rule, flag_bad, flag_doubt, flag_good, ignition, opc_ua

TAGS = (
    *("tag", "tagname", "tagpath", "pointname", "point", "name", "signal", "variable", "varname", "path", "attribute"),
    *("tagid", "sensor", "series", "metric", "messstelle", "messpunkt", "kks", "punkt", "nom", "nombre", "punto"),
)
TIMES = (
    *("timestamp", "tstamp", "time", "datetime", "date", "ts", "timestring", "sourcetimestamp", "sourcetime"),
    *("zeit", "zeitstempel", "zeitpunkt", "datum", "datumzeit", "datumuhrzeit", "horodatage", "dateheure", "fecha"),
    *("fechahora", "dataora", "tijd", "czas", "tid", "время", "时间", "時刻", "utc"),
)
VALUES = (
    *("value", "val", "varvalue", "wert", "messwert", "valeur", "valor", "valore", "waarde", "wartosc", "значение"),
    *("pv", "reading", "data", "fvalue"),
)
UNITS = ("uom", "unit", "units", "engunits", "engineeringunits", "unitsabbreviation", "einheit", "eu")
DESCRIPTIONS = ("description", "descriptor", "desc", "beschreibung", "bezeichnung", "comment")
VALIDITY = (
    *(
        "valid",
        "isvalid",
        "validity",
        "gultig",
        "gultigkeit",
        "gueltig",
        "gueltigkeit",
        "validite",
        "valide",
        "validez",
        "valido",
        "validita",
    ),
    *("geldig", "geldigheid", "waznosc", "giltighet", "достоверность", "有效性", "有效"),
)
QUALITIES = (
    *("quality", "qual", "q", "qc", "qualitycode", "dataquality", "qualityflag", "qcflag", "flag"),
    *(
        "status",
        "statuscode",
        "valuestatus",
        "qualitat",
        "qualitaet",
        "qualite",
        "statut",
        "calidad",
        "estado",
        "qualita",
        "stato",
    ),
    *("qualidade", "kwaliteit", "kvalitet", "laatu", "jakosc", "kvalita", "качество", "статус", "品質", "质量"),
)
SOUNDS_OF_QUALITY = ("qualit", "valid", "gultig", "gueltig", "kvalit", "kwalite", "jakosc", "качеств", "品質", "质量")
"""What the name of a column of quality has in it where it is none of these words."""
FLAGS: Mapping[str, Rule | None] = {
    "good": flag_good,
    "isgood": flag_good,
    "questionable": flag_doubt,
    "substituted": flag_doubt,
    "invalid": flag_bad,
    "isbad": flag_bad,
    "bad": flag_bad,
    "ungultig": flag_bad,
    "ungueltig": flag_bad,
    "weak": flag_doubt,
    "manual": flag_doubt,
    **dict.fromkeys((*VALIDITY, *QUALITIES), None),
    "statuscode": opc_ua,
    "dataintegrity": ignition,
}
"""Columns of quality; None: the convention is told by evidence."""
ASIDE = frozenset(
    {"type", "datatype", "valuetype", "datevalue", "annotated", "timems", "webid", "line", "row", "index"}
)
"""Columns that say nothing of a value that others do not."""
_UNIT = (
    r"°?[CFK]|deg ?[CF]|%|‰|[kmMµunpcd]?(bar|Pa|A|V|W|Wh|Hz|g|m|l|s|N|J|Nm|mol|S/m)|psi[ag]?|bar[ag]?|rpm|1/min|"
    r"ppm|ppb|pH|mmhg|inh2o|(k?g|t|m3|Nm3|m³|Nm³|l|gal|bbl|scf|m)/(s|sec|min|h|hr|d|m3|m³)|"
    r"m3|m³|h|min"
)
UNIT = re.compile(rf"(?i)^({_UNIT}|1|-|)$")
NUMBER_AND_UNIT = rf"(?i)^(?<number>[+-]?\d[\d.,]*(?:e[+-]?\d+)?)[ \u00a0]?(?<unit>{_UNIT})$"
SCALES = ("k", "m")
"""Behind a number these may scale it, a thousand or a million, as well as be kelvin or metres."""
