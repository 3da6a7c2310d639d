"""Small exports as they are met in the field: a name, the text, what the user says, and every row that must come out.

A row is ``TAG TIME VALUE QUALITY`` with the time in UTC, ``-`` for no value and G, U or B.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Export:
    name: str
    text: str | bytes
    rows: str
    tz: str = ""
    dates: str = ""
    file: str = "export.csv"
    rejected: int = 0
    units: str = ""


PI_CSV = [
    Export(
        name="PI with BOM, CRLF and quoted headers",
        text='\ufeff"Tag","Timestamp","Value"\r\n"SINUSOID","2024-05-13T06:00:00.1234567Z","1.5"\r\n'
        '"SINUSOID","2024-05-13T06:00:10.7654321Z","2.5"\r\n',
        rows="""SINUSOID 2024-05-13T06:00:00.123456700Z 1.5 G
                SINUSOID 2024-05-13T06:00:10.765432100Z 2.5 G""",
    ),
    Export(
        name="PI with thousands separators in quotes",
        text='tag,timestamp,value\nFT1,2024-05-13T06:00:00Z,"12,345.5"\nFT1,2024-05-13T06:00:10Z,"1,234,567"\n'
        "FT1,2024-05-13T06:00:20Z,999.25\n",
        rows="""FT1 2024-05-13T06:00:00Z 12345.5 G
                FT1 2024-05-13T06:00:10Z 1234567 G
                FT1 2024-05-13T06:00:20Z 999.25 G""",
    ),
    Export(
        name="PI states among numbers",
        text="tag,timestamp,value\n"
        + "".join(
            f"T1,2024-05-13T06:{i:02}:00Z,{v}\n"
            for i, v in enumerate(
                [
                    "1",
                    "#N/A",
                    "Bad Input",
                    "No Data",
                    "I/O Timeout",
                    "Pt Created",
                    "Calc Failed",
                    "2",
                    "Over Range",
                    "3",
                    "4",
                    "5",
                    "6",
                    "7",
                    "8",
                    "9",
                ]
            )
        ),
        rows="T1 2024-05-13T06:00:00Z 1 G\n"
        + "\n".join(f"T1 2024-05-13T06:{i:02}:00Z - B" for i in (1, 2, 3, 4, 5, 6, 8))
        + "\nT1 2024-05-13T06:07:00Z 2 G\n"
        + "\n".join(f"T1 2024-05-13T06:{i:02}:00Z {i - 6} G" for i in range(9, 16)),
    ),
    Export(
        name="PI DataLink: 01-Jan-24 stamps, a tag with a blank around it, a status column",
        text="Tag Name,Time Stamp,Value,Status\n TT1 ,13-May-24 08:00:00.123,1.5,Good\n"
        "TT1,13-May-24 08:00:01,2.5,Questionable\n"
        "TT1,13-May-24 08:00:02,3.5,Substituted\nTT1,13-May-24 08:00:03,4.5,Bad\n",
        tz="Europe/Berlin",
        rows="""TT1 2024-05-13T06:00:00.123Z 1.5 G
                TT1 2024-05-13T06:00:01Z 2.5 U
                TT1 2024-05-13T06:00:02Z 3.5 U
                TT1 2024-05-13T06:00:03Z 4.5 B""",
    ),
    Export(
        name="PI flags as columns",
        text="Name,Timestamp,Value,Good,Questionable,Substituted,UnitsAbbreviation\n"
        "TT1,2024-05-13T06:00:00Z,1,True,False,False,bar\nTT1,2024-05-13T06:00:01Z,2,True,True,False,bar\n"
        "TT1,2024-05-13T06:00:02Z,3,False,False,False,bar\nTT1,2024-05-13T06:00:03Z,4,True,False,True,bar\n",
        rows="""TT1 2024-05-13T06:00:00Z 1 G
                TT1 2024-05-13T06:00:01Z 2 U
                TT1 2024-05-13T06:00:02Z 3 B
                TT1 2024-05-13T06:00:03Z 4 U""",
        units="TT1=bar",
    ),
    Export(
        name="PI with month first and AM and PM",
        text="tag,timestamp,value\nA,5/13/2024 11:59:59 AM,1\nA,5/13/2024 12:00:00 PM,2\nA,5/13/2024 1:00:00 PM,3\n"
        "A,5/14/2024 12:00:00 AM,4\n",
        tz="UTC",
        rows="""A 2024-05-13T11:59:59Z 1 G
                A 2024-05-13T12:00:00Z 2 G
                A 2024-05-13T13:00:00Z 3 G
                A 2024-05-14T00:00:00Z 4 G""",
    ),
    Export(
        name="PI with offsets",
        text="tag,timestamp,value\nA,2024-10-27T02:30:00+02:00,1\nA,2024-10-27T02:30:00+01:00,2\n"
        "A,2024-10-27T03:00:00+01:00,3\n",
        rows="""A 2024-10-27T00:30:00Z 1 G
                A 2024-10-27T01:30:00Z 2 G
                A 2024-10-27T02:00:00Z 3 G""",
    ),
    Export(
        name="numbers with exponents, signs and blanks",
        text="tag,timestamp,value\nA,2024-05-13T06:00:00Z,-1.5E-03\nA,2024-05-13T06:00:01Z, +2 \n"
        "A,2024-05-13T06:00:02Z,1e3\n",
        rows="""A 2024-05-13T06:00:00Z -0.0015 G
                A 2024-05-13T06:00:01Z 2 G
                A 2024-05-13T06:00:02Z 1000 G""",
    ),
    Export(
        name="a tag name with a comma and quotes, one without a tag",
        text='tag,timestamp,value\n"Kiln, ""north""",2024-05-13T06:00:00Z,1\n,2024-05-13T06:00:01Z,2\n'
        '"",2024-05-13T06:00:01Z,2\n"Kiln, ""north""",2024-05-13T06:00:02Z,3\n'
        '"Kiln, ""north""",2024-05-13T06:00:03Z,4\n'
        '"Kiln, ""north""",2024-05-13T06:00:04Z,4\n',
        rows="""Kiln,_"north" 2024-05-13T06:00:00Z 1 G
                Kiln,_"north" 2024-05-13T06:00:02Z 3 G
                Kiln,_"north" 2024-05-13T06:00:03Z 4 G
                Kiln,_"north" 2024-05-13T06:00:04Z 4 G""",
        rejected=2,
    ),
    Export(
        name="tabs without a header",
        text="A\t2024-05-13 06:00:00\t1\nB\t2024-05-13 06:00:00\t2\nA\t2024-05-13 06:00:01\t3\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01Z 3 G
                B 2024-05-13T06:00:00Z 2 G""",
    ),
]

STAMPS = [
    Export(
        name=f"epoch, {unit}",
        text=f"tag,timestamp,value\nA,{1715580000 * factor + part},1\nA,{1715580060 * factor},2\n",
        rows=f"""A 2024-05-13T06:00:00{fraction}Z 1 G
                 A 2024-05-13T06:01:00Z 2 G""",
    )
    for unit, factor, part, fraction in (
        ("s", 1, 0, ""),
        ("ms", 1000, 5, ".005"),
        ("us", 10**6, 7, ".000007"),
        ("ns", 10**9, 123456789, ".123456789"),
    )
] + [
    Export(
        name="epoch seconds with a fraction",
        text="tag,timestamp,value\nA,1715580000.25,1\nA,1715580060.123456,2\n",
        rows="""A 2024-05-13T06:00:00.25Z 1 G
                A 2024-05-13T06:01:00.123456Z 2 G""",
    ),
    Export(
        name="Excel day numbers",
        text="tag,timestamp,value\nA,45425.25,1\nA,45425.250011574,2\nA,45425.5,3\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01Z 2 G
                A 2024-05-13T12:00:00Z 3 G""",
    ),
    Export(
        name="Excel day numbers with decimal comma, wide",
        text="Zeit;A;B\n;bar;%\n45425,25;1,5;2\n45425,2506944444;2,5;\n45425,5;3,5;4\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:01:00Z 2.5 G
                A 2024-05-13T12:00:00Z 3.5 G
                B 2024-05-13T06:00:00Z 2 G
                B 2024-05-13T12:00:00Z 4 G""",
        units="A=bar B=%",
    ),
    Export(
        name="German stamps, minutes only",
        text="Zeit;Tag;Wert\n13.05.2024 08:00;A;1,5\n13.05.2024 08:01;A;2,5\n",
        tz="Europe/Berlin",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:01:00Z 2.5 G""",
    ),
    Export(
        name="a fraction after a comma",
        text="Zeit;Tag;Wert\n13.05.2024 08:00:00,250;A;1,5\n13.05.2024 08:01:00,750;A;2,5\n",
        tz="Europe/Berlin",
        rows="""A 2024-05-13T06:00:00.25Z 1.5 G
                A 2024-05-13T06:01:00.75Z 2.5 G""",
    ),
    Export(
        name="the repeated hour, one tag in order",
        text="tag,timestamp,value\nA,2024-10-27 01:30:00,1\nA,2024-10-27 02:00:00,2\nA,2024-10-27 02:30:00,3\n"
        "A,2024-10-27 02:00:00,4\nA,2024-10-27 02:30:00,5\nA,2024-10-27 03:00:00,6\n",
        tz="Europe/Berlin",
        rows="""A 2024-10-26T23:30:00Z 1 G
                A 2024-10-27T00:00:00Z 2 G
                A 2024-10-27T00:30:00Z 3 G
                A 2024-10-27T01:00:00Z 4 G
                A 2024-10-27T01:30:00Z 5 G
                A 2024-10-27T02:00:00Z 6 G""",
    ),
    Export(
        name="the repeated hour, wide",
        text="Zeit;A;B\n27.10.2024 02:45:00;1;1\n27.10.2024 02:59:00;2;2\n27.10.2024 02:00:00;3;3\n"
        "27.10.2024 03:00:00;4;4\n",
        tz="Europe/Berlin",
        rows="""A 2024-10-27T00:45:00Z 1 G
                A 2024-10-27T00:59:00Z 2 G
                A 2024-10-27T01:00:00Z 3 G
                A 2024-10-27T02:00:00Z 4 G
                B 2024-10-27T00:45:00Z 1 G
                B 2024-10-27T00:59:00Z 2 G
                B 2024-10-27T01:00:00Z 3 G
                B 2024-10-27T02:00:00Z 4 G""",
    ),
    Export(
        name="the hour that is missing in spring",
        text="tag,timestamp,value\nA,31.03.2024 01:59:59,1\nA,31.03.2024 02:30:00,2\nA,31.03.2024 03:00:00,3\n"
        "A,31.03.2024 03:00:01,4\n",
        tz="Europe/Berlin",
        rows="""A 2024-03-31T00:59:59Z 1 G
                A 2024-03-31T01:00:00Z 3 G
                A 2024-03-31T01:00:01Z 4 G""",
        rejected=1,
    ),
    Export(
        name="day first as one stamp decides",
        text="tag,timestamp,value\nA,05/06/2024 06:00:00,1\nA,13/06/2024 06:00:00,2\n",
        tz="UTC",
        rows="""A 2024-06-05T06:00:00Z 1 G
                A 2024-06-13T06:00:00Z 2 G""",
    ),
    Export(
        name="day first as said",
        text="tag,timestamp,value\nA,05/06/2024 06:00,1\nA,06/06/2024 06:00,2\n",
        tz="UTC",
        dates="day-first",
        rows="""A 2024-06-05T06:00:00Z 1 G
                A 2024-06-06T06:00:00Z 2 G""",
    ),
    Export(
        name="compact ISO",
        text="tag,timestamp,value\nA,20240513T060000Z,1\nA,20240513T060001Z,2\n",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01Z 2 G""",
    ),
    Export(
        name="the name of the zone at the end",
        text="tag,timestamp,value\nA,2024-05-13 06:00:00 UTC,1\nA,2024-05-13 06:00:01 UTC,2\n",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01Z 2 G""",
    ),
]
PROFICY = [
    Export(
        name="Proficy, data before tags",
        text="[Data]\r\nTagname,TimeStamp,Value,DataQuality\r\nT.F_CV,5/13/24 6:00,1,Good\r\n"
        "T.F_CV,5/13/24 6:01,2,Bad\r\n"
        "T.F_CV,5/13/24 6:02,3,Good\r\n\r\n[Tags]\r\nTagname,Description,EngineeringUnits\r\nT.F_CV,Flow,m3/h\r\n",
        tz="UTC",
        rows="""T.F_CV 2024-05-13T06:00:00Z 1 G
                T.F_CV 2024-05-13T06:01:00Z 2 B
                T.F_CV 2024-05-13T06:02:00Z 3 G""",
        units="T.F_CV=m3/h",
    ),
    Export(
        name="Proficy, two data blocks with columns in another order",
        text="*comment\n[Data]\nTagname,TimeStamp,Value,DataQuality\nA,5/13/2024 6:00:00 AM,1,Good\n"
        "A,5/13/2024 6:00:01 AM,1.5,Good\n[Data]\n"
        "Tagname,TimeStamp,DataQuality,Value\nB,5/13/2024 6:00:00 PM,Bad,2\nB,5/13/2024 6:00:01 PM,Good,3\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01Z 1.5 G
                B 2024-05-13T18:00:00Z 2 B
                B 2024-05-13T18:00:01Z 3 G""",
    ),
    Export(
        name="Proficy, alarms first, quality with a percentage",
        text="[Alarms]\nAlarmID,ItemID\n1,A\n[Data]\nTagname,TimeStamp,Value,DataQuality\n"
        "A,05/13/2024 06:00:00.000,1,100\nA,05/13/2024 06:00:01.500,2,0\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01.5Z 2 B""",
    ),
]
AVEVA = [
    Export(
        name="AVEVA QualityDetail alone",
        text="TagName,DateTime,Value,QualityDetail\nA,2024-05-13 06:00:00.0000000,1,192\n"
        "A,2024-05-13 06:00:01.0000000,NULL,249\n"
        "A,2024-05-13 06:00:02.1230000,3,192\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1 G
                A 2024-05-13T06:00:01Z - B
                A 2024-05-13T06:00:02.123Z 3 G""",
    ),
    Export(
        name="AVEVA OPCQuality with NULL",
        text="DateTime;TagName;Value;OPCQuality\n2024-05-13 06:00:00,000;A;1,5;192\n"
        "2024-05-13 06:00:01,500;A;(null);0\n"
        "2024-05-13 06:00:02,000;A;2,5;64\n",
        tz="UTC",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01.5Z - B
                A 2024-05-13T06:00:02Z 2.5 U""",
    ),
    Export(
        name="AVEVA wide with a unit row",
        text="DateTime,ReactLevel,ReactTemp\n2024-05-13 06:00:00.000,1,2\n2024-05-13 06:00:01.000,NULL,3\n"
        "2024-05-13 06:00:02.000,4,5\n",
        tz="UTC",
        rows="""ReactLevel 2024-05-13T06:00:00Z 1 G
                ReactLevel 2024-05-13T06:00:01Z - B
                ReactLevel 2024-05-13T06:00:02Z 4 G
                ReactTemp 2024-05-13T06:00:00Z 2 G
                ReactTemp 2024-05-13T06:00:01Z 3 G
                ReactTemp 2024-05-13T06:00:02Z 5 G""",
    ),
]
IGNITION = [
    Export(
        name="Ignition tall, integer quality",
        text="path,value,quality,timestamp\n[default]Line/TT1,1.5,192,1715580000000\n"
        "[default]Line/TT1,2.5,0,1715580001000\n"
        "[default]Line/TT1,3.5,64,1715580002000\n",
        rows="""[default]Line/TT1 2024-05-13T06:00:00Z 1.5 G
                [default]Line/TT1 2024-05-13T06:00:01Z 2.5 B
                [default]Line/TT1 2024-05-13T06:00:02Z 3.5 U""",
    ),
    Export(
        name="Ignition tall, quality codes by name",
        text='"path","value","quality","t_stamp"\n"Line/TT1","1.5","Good_Unspecified","2024-05-13 06:00:00.250"\n'
        '"Line/TT1","2.5","Bad_Stale","2024-05-13 06:00:01.250"\n'
        '"Line/TT1","3.5","Uncertain_LastKnownValue","2024-05-13 06:00:02.250"\n'
        '"Line/TT1","4.5","Good","2024-05-13 06:00:03.250"\n',
        tz="UTC",
        rows="""Line/TT1 2024-05-13T06:00:00.25Z 1.5 G
                Line/TT1 2024-05-13T06:00:01.25Z 2.5 B
                Line/TT1 2024-05-13T06:00:02.25Z 3.5 U
                Line/TT1 2024-05-13T06:00:03.25Z 4.5 G""",
    ),
    Export(
        name="Ignition with the new integer codes",
        text="tagpath,floatvalue,intvalue,dataintegrity,t_stamp\nA,1.5,,192,1715580000000\n"
        "A,2.5,,600,1715580001000\nB,,7,192,1715580000000\n",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01Z 2.5 B
                B 2024-05-13T06:00:00Z 7 G""",
    ),
    Export(
        name="Ignition wide report with dates as its client shows them",
        text='"t_stamp","Line/TT1","Line/FT1"\n"May 13, 2024 6:00:00 AM","1.5","10"\n'
        '"May 13, 2024 6:00:01 AM","2.5","20"\n',
        tz="UTC",
        rows="""Line/FT1 2024-05-13T06:00:00Z 10 G
                Line/FT1 2024-05-13T06:00:01Z 20 G
                Line/TT1 2024-05-13T06:00:00Z 1.5 G
                Line/TT1 2024-05-13T06:00:01Z 2.5 G""",
    ),
]
_AB = """A 2024-05-13T06:00:00Z 1.5 G
         A 2024-05-13T06:00:01Z 2.5 G
         B 2024-05-13T06:00:00Z 10 G
         B 2024-05-13T06:00:01Z 20 G"""
WIDE = [
    Export(
        name="wide, two header rows, units below",
        text="Timestamp,A,B\n,bar,°C\n2024-05-13T06:00:00Z,1.5,10\n2024-05-13T06:00:01Z,2.5,20\n",
        rows=_AB,
        units="A=bar B=Cel",
    ),
    Export(
        name="wide, units above the tags",
        text=";bar;°C\nTimestamp;A;B\n2024-05-13T06:00:00Z;1,5;10\n2024-05-13T06:00:01Z;2,5;20\n",
        rows=_AB,
        units="A=bar B=Cel",
    ),
    Export(
        name="wide, four header rows: tag, description, unit, and what the point is",
        text="Tag,A,B\nDescription,Pressure of the line,Temperature of the bath\nUnit,bar,°C\nType,Float32,Float32\n"
        "2024-05-13T06:00:00Z,1.5,10\n2024-05-13T06:00:01Z,2.5,20\n",
        rows=_AB,
        units="A=bar B=Cel",
    ),
    Export(
        name="wide, four header rows without words",
        text=",Area1,Area1\n,P101,T101\n,Pressure of the line,Temperature of the bath\n,bar,degC\n"
        "2024-05-13T06:00:00Z,1.5,10\n2024-05-13T06:00:01Z,2.5,20\n",
        rows=_AB.replace("A 2", "P101 2").replace("B 2", "T101 2"),
        units="P101=bar T101=Cel",
    ),
    Export(
        name="wide, units in brackets in the names",
        text="Date Time,A [bar],B (°C)\n2024-05-13T06:00:00Z,1.5,10\n2024-05-13T06:00:01Z,2.5,20\n",
        rows=_AB,
        units="A=bar B=Cel",
    ),
    Export(
        name="wide with units in a fourth row below descriptions that repeat",
        text="Timestamp;A;B\nBeschreibung;Messwert;Messwert\nEinheit;bar;°C\n13.05.2024 08:00:00;1,5;10,0\n"
        "13.05.2024 08:00:01;2,5;20,0\n",
        tz="Europe/Berlin",
        rows=_AB,
        units="A=bar B=Cel",
    ),
    Export(
        name="pairs Tag.Value and Tag.Quality",
        text="Time,A.Value,A.Quality,B.Value,B.Quality\n2024-05-13T06:00:00Z,1.5,192,10,192\n"
        "2024-05-13T06:00:01Z,2.5,0,20,64\n",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01Z 2.5 B
                B 2024-05-13T06:00:00Z 10 G
                B 2024-05-13T06:00:01Z 20 U""",
    ),
    Export(
        name="pairs Tag and Tag Status",
        text="Time,A,A Status,B,B Status\n2024-05-13T06:00:00Z,1.5,Good,10,Good\n"
        "2024-05-13T06:00:01Z,2.5,Bad,20,Uncertain\n",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01Z 2.5 B
                B 2024-05-13T06:00:00Z 10 G
                B 2024-05-13T06:00:01Z 20 U""",
    ),
    Export(
        name="pairs under a merged tag row and a row of Value and Quality",
        text="Time,A,,B,\n,Value,Quality,Value,Quality\n2024-05-13T06:00:00Z,1.5,Good,10,Good\n"
        "2024-05-13T06:00:01Z,2.5,Bad,20,Good\n",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01Z 2.5 B
                B 2024-05-13T06:00:00Z 10 G
                B 2024-05-13T06:00:01Z 20 G""",
    ),
    Export(
        name="pairs Tag and Tag_Q after all the values",
        text="Time,A,B,A_Q,B_Q\n2024-05-13T06:00:00Z,1.5,10,192,192\n2024-05-13T06:00:01Z,2.5,20,0,192\n",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01Z 2.5 B
                B 2024-05-13T06:00:00Z 10 G
                B 2024-05-13T06:00:01Z 20 G""",
    ),
    Export(
        name="thousands and decimal comma, European",
        text="Zeit;A;B\n13.05.2024 08:00:00;1.234,5;10\n13.05.2024 08:00:01;12.345.678,25;20\n",
        tz="Europe/Berlin",
        rows="""A 2024-05-13T06:00:00Z 1234.5 G
                A 2024-05-13T06:00:01Z 12345678.25 G
                B 2024-05-13T06:00:00Z 10 G
                B 2024-05-13T06:00:01Z 20 G""",
    ),
    Export(
        name="wide with states, an empty last column and an empty line",
        text="Time,A,B,\n2024-05-13T06:00:00Z,1.5,10,\n\n2024-05-13T06:00:01Z,Bad Input,20,\n"
        "2024-05-13T06:00:02Z,,30,\n",
        rows="""A 2024-05-13T06:00:00Z 1.5 G
                A 2024-05-13T06:00:01Z - B
                B 2024-05-13T06:00:00Z 10 G
                B 2024-05-13T06:00:01Z 20 G
                B 2024-05-13T06:00:02Z 30 G""",
    ),
    Export(
        name="wide with a preamble and a footer",
        text="Plant: lime\nPeriod: 2024-05-13\n\nTime;A;B\n2024-05-13T06:00:00Z;1,5;10\n"
        "2024-05-13T06:00:01Z;2,5;20\nEnd of report;;\n",
        rows=_AB,
        rejected=1,
    ),
    Export(
        name="date and time in two columns, headed",
        text="Date,Time,A,B\n13/05/2024,06:00:00,1.5,10\n13/05/2024,06:00:01,2.5,20\n",
        tz="UTC",
        rows=_AB,
    ),
]
EXPORTS = [*PI_CSV, *STAMPS, *PROFICY, *AVEVA, *IGNITION, *WIDE]
