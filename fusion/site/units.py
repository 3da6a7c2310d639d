"""Engineering units as OPC UA servers and devices write them, as UCUM.

Source: OPC 10000-8 5.6.4.3, by which a unit id holds the letters of the common code of UNECE recommendation 20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fusion.importing.proposal import ucum


def _table(text: str) -> Mapping[str, str]:
    """Pairs as they stand in a text, the UCUM unit behind the last sign of equality."""
    return {key: unit for key, _, unit in (pair.rpartition("=") for pair in text.split())}


BY_CODE = _table(
    """
    C62=1 P1=% 59=[ppm] 61=[ppb] Q30=[pH] 2N=dB CEL=Cel KEL=K FAH=[degF] PAL=Pa A97=hPa KPA=kPa MPA=MPa BAR=bar
    MBR=mbar PS=[psi] ATM=atm MQS=m3/s MQH=m3/h G51=L/s L2=L/min E32=L/h G2=[gal_us]/min KGS=kg/s E93=kg/h E18=t/h
    KGM=kg GRM=g MGM=mg TNE=t LBR=[lb_av] MTR=m CMT=cm MMT=mm 4H=um KMT=km INH=[in_i] FOT=[ft_i] MTK=m2 MTQ=m3 LTR=L
    MLT=mL HLT=hL GLL=[gal_us] MTS=m/s KMH=km/h 2X=m/min C16=mm/s MSK=m/s2 AMP=A 4K=mA VLT=V 2Z=mV KVT=kV OHM=Ohm
    WTT=W KWT=kW MAW=MW WHR=W.h KWH=kW.h MWH=MW.h JOU=J KJO=kJ HTZ=Hz KHZ=kHz MHZ=MHz RPM=/min RPS=/s SEC=s C26=ms
    MIN=min HUR=h DAY=d NEW=N B47=kN NU=N.m C65=Pa.s C24=mPa.s 4C=cSt KMQ=kg/m3 23=g/cm3 GL=g/L M1=mg/L GP=mg/m3
    DD=deg C81=rad LUX=lx D10=S/m D33=T
    """
)
SPELLED = _table(
    """
    %=% percent=% pct=% k=K kelvin=K ℃=Cel celsius=Cel ℉=[degF] m3/hr=m3/h m^3/h=m3/h cbm/h=m3/h m³/s=m3/s
    m^3/s=m3/s m³=m3 m^3=m3 m²=m2 m^2=m2 lpm=L/min gpm=[gal_us]/min l=L liter=L litre=L kg/m³=kg/m3 kg/m^3=kg/m3
    mg/l=mg/L g/l=g/L mg/m³=mg/m3 g/cm³=g/cm3 kg/sec=kg/s tph=t/h to/h=t/h bar(g)=bar bar(a)=bar u/min=/min
    min-1=/min min⁻¹=/min r/min=/min 1/s=/s s-1=/s kwh=kW.h mwh=MW.h wh=W.h nm=N.m m/s²=m/s2 m/s^2=m/s2 °=deg µm=um
    μm=um µs/cm=uS/cm μs/cm=uS/cm ohm=Ohm ω=Ohm 1=1 ph=[pH] gal/min=[gal_us]/min lb=[lb_av] ft=[ft_i] in=[in_i]
    inch=[in_i] mmhg=mm[Hg] inh2o=[in_i'H2O] mmh2o=mm[H2O] mmwc=mm[H2O] fraction=1 %rh=% cp=cP hp=[HP]
    °с=Cel квт=kW мвт=MW квт·ч=kW.h об/мин=/min м3/ч=m3/h м³/ч=m3/h кг/ч=kg/h т/ч=t/h л/мин=L/min л/с=L/s мм/с=mm/s
    бар=bar мбар=mbar кпа=kPa мпа=MPa гц=Hz мм=mm tr/min=/min l/mn=L/min 转/分=/min 立方米/时=m3/h
    """
)
"""By lower-case spelling; beside those that exports of historians use."""
AS_LAST_WORD = _table(
    """
    c=Cel degc=Cel celsius=Cel degf=[degF] bar=bar mbar=mbar kpa=kPa pct=% percent=% rpm=/min lpm=L/min m3h=m3/h
    kgh=kg/h ppm=[ppm] kw=kW kwh=kW.h hz=Hz mm=mm a=A amps=A v=V volts=V hours=h hrs=h heures=h stunden=h ч=h часы=h
    квт=kW мвт=MW бар=bar кпа=kPa мпа=MPa гц=Hz
    """
)
"""What the last word of a name such as ``oil_temp_c`` says."""
BRACKETED = re.compile(r"[\[(]([^\])]{1,12})[\])]\s*$")

ALSO_KNOWN = "uS/cm mS/cm mW mWh uA L/min kN.m mol/L var V.A kV.A cm2"
KNOWN = {*BY_CODE.values(), *SPELLED.values(), *ALSO_KNOWN.split()}


def from_code(unit_id: int) -> str:
    """The UCUM unit of an OPC UA unit id; empty where the id is none that is known."""
    if not 0 < unit_id < 1 << 32:
        return ""
    letters = unit_id.to_bytes(4, "big").lstrip(b"\0").decode("ascii", "replace")
    return BY_CODE.get(letters, "")


def from_words(name: str, description: str) -> str:
    """A unit in brackets or written as a quotient in a description or name, or a name's last word; else empty."""
    for words in (description, name):
        bracketed = BRACKETED.search(words)
        written = [bracketed[1]] if bracketed else []
        written += [word for word in re.split(r"[\s_,;()\[\]]+", words) if "/" in word[1:]]
        for text in written:
            if from_text(text)[1]:
                return from_text(text)[0]
    *before, last = [piece for piece in re.split(r"[\W_]+|(?<=[a-z0-9])(?=[A-Z][a-z])", name) if piece] or [""]
    return AS_LAST_WORD.get(last.lower(), "") if before else ""


def from_text(text: str) -> tuple[str, bool]:
    """A unit's spelling as UCUM, and whether it is one that is known."""
    said = text.strip()
    if said in KNOWN:
        return said, True
    unit = SPELLED.get(said.lower()) or ucum(said)
    alike = [known for known in KNOWN if known.lower() == unit.lower()]
    shouted = unit in (unit.upper(), unit.lower())
    return (alike[0], True) if len(alike) == 1 and shouted else (unit, unit in KNOWN)
