"""Writes prose.txt: about 100 kB of made-up travel notes from a small grammar and a fixed seed.

The sentences were written for this project and fall under its licence. The text is
committed, so that nobody needs to run this: `python3 make_prose.py > prose.txt`.
"""

import random

WHO = """the harbour master|an old cartographer|the youngest of the three sisters|a tired surveyor|my guide|the ferryman|the
keeper of the light|a woman with a basket of eels|the schoolteacher|two brothers from the upper valley|the baker's apprentice|a
retired clockmaker|the night watchman|a botanist I never saw again|the miller|the piano tuner|our innkeeper|a boy with a
kite|the postmistress|the stonemason""".replace("\n", " ").split("|")
SAID = """insisted|remarked|told us twice|swore|admitted after supper|wrote in a careful hand|believed, against all evidence,|used
to say|explained at length|whispered|had heard from a cousin""".replace("\n", " ").split("|")
CLAIM = """the wind keeps its promises better than people do|no map of the coast stays true for longer than nine winters|the bridge was
built from one side only|a river that is measured daily grows shy|the mountain moves a hand's breadth when nobody counts|there had
once been a second moon, smaller and less reliable|salt is only patience that has dried|the shortest road is the one with a good
story on it|a bell can be heard farther than it can be forgiven|every lighthouse is a letter that anybody may read|rain from
the east is heavier, and cheaper|goats understand weather and pretend not to|the tide leaves more than it takes, but never in the
same place|a lamp should be lit before it is needed|fog is the only honest customs officer""".replace("\n", " ").split("|")
PLACE = """the market square|the long quay|the ridge above the quarry|a kitchen that smelled of thyme|the last house before the
marsh|the reading room|the wooden chapel|the pass|a field of blue flax|the station with no railway|the orchard wall|the ford below the
mill|a tower without stairs|the weighing house|the ropewalk""".replace("\n", " ").split("|")
DID = """counted the swallows|mended a net|drew the same hill three times|drank tea until it was cold|waited for the second
boat|read the names on the stones|compared our watches and trusted neither|learned four words for mud|bought apples we did not
want|listened to the ice|lost an hour and found a path|took the measure of the door|sorted pebbles by the sound they made|wrote
down the prices of rope, oil and candles""".replace("\n", " ").split("|")
WHEN = """In the morning|Towards evening|On the third day|Before the frost|After the harvest|At low water|When the lamps were lit|Shortly
after noon|On market day|During the storm|A week later|While the others slept|As the mist rose|By the light of one
candle""".replace("\n", " ").split("|")
THING = """lantern|compass|letter|ladder|ledger|bell|coat|teapot|barometer|key|saddle|violin|umbrella|anchor|notebook|kite|oar|
telescope""".replace("\n", "").split("|")
QUALITY = """brass|borrowed|crooked|patient|nameless|salt-stained|well-mended|unlikely|green|heavy|polite|forgotten|second-best|
moonlit|stubborn|hollow""".replace("\n", "").split("|")

SHAPES = (
    "{When} we {did} at {place}.",
    "{When}, {who} {said} that {claim}.",
    "{Who} owned a {quality} {thing}, and {said} that {claim}.",
    "I asked for a {quality} {thing}; they gave me a {quality2} one and told me that {claim}.",
    "Between {place} and {place2} there are {number} steps, if the {thing} is left at home.",
    "Nobody at {place} remembered the {quality} {thing}, though {who} {said} that it had hung there for {number} years.",
    "{When} {who} {did2}, and we {did}, and nobody spoke of the {thing}.",
    "It was {number} miles to {place}, and every one of them {said2} that {claim}.",
    "“{Claim},” said {who}, and closed the {thing}.",
)
AIM_BYTES = 100_000


def sentence(choose):
    text = choose.choice(SHAPES)
    claim, who = choose.choice(CLAIM), choose.choice(WHO)
    return text.format(
        When=choose.choice(WHEN), who=who, Who=who[0].upper() + who[1:], said=choose.choice(SAID), claim=claim,
        Claim=claim[0].upper() + claim[1:], place=choose.choice(PLACE), place2=choose.choice(PLACE), did=choose.choice(DID),
        did2=choose.choice(DID), said2=choose.choice(("proved", "hinted", "forgot", "repeated")), thing=choose.choice(THING),
        quality=choose.choice(QUALITY), quality2=choose.choice(QUALITY), number=choose.choice(("nine", "forty", "seventeen", "three", "a hundred and two")),
    )  # fmt: skip


def prose():
    choose = random.Random(1)
    text = "NOTES FROM A COAST WITHOUT A NAME\n\n"
    while len(text.encode()) < AIM_BYTES:
        line = ""
        for word in " ".join(sentence(choose) for _ in range(choose.randint(3, 8))).split():
            if len(line) + len(word) > 78:
                text += line.rstrip() + "\n"
                line = ""
            line += word + " "
        text += line.rstrip() + "\n\n"
    return text


if __name__ == "__main__":
    print(prose(), end="")
