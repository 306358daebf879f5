"""Write the bundled list of prompts: made from the words below with a seed, no data set's text in it.

`python tools/prompts.py` writes src/guidefold/prompts/english.txt again, the same every time.
"""

import random
from pathlib import Path

COUNT, SEED = 2400, 7
OUTPUT = Path(__file__).resolve().parent.parent / "src" / "guidefold" / "prompts" / "english.txt"


def words(text: str) -> list[str]:
    """Return what commas separate."""
    return [" ".join(word.split()) for word in text.split(",")]


ANIMALS = words(
    """
    fox, cat, dog, horse, owl, raven, heron, otter, badger, hedgehog, elephant, giraffe, tiger, snow leopard,
    wolf, brown bear, polar bear, penguin, sea turtle, octopus, jellyfish, humpback whale, goldfish, frog,
    gecko, chameleon, beetle, dragonfly, butterfly, bumblebee, snail, goat, sheep, cow, rooster, duck, swan,
    pigeon, parrot, squirrel, rabbit, mouse, deer, moose, camel, donkey, crab, spider, moth, kingfisher
    """
)
PEOPLE = words(
    """
    old fisherman, young dancer, baker, blacksmith, violinist, astronaut, firefighter, librarian, gardener,
    nurse, child with a kite, grandmother, beekeeper, potter, sailor, mountaineer, street musician, chess
    player, cyclist, farmer, painter, tailor, carpenter, mechanic, surgeon, teacher, swimmer, boxer, monk,
    queen, knight, wizard, detective, pilot, train conductor, diver, skater, photographer, shepherd, clockmaker
    """
)
THINGS = words(
    """
    teapot, typewriter, bicycle, violin, lighthouse, windmill, sailing boat, steam locomotive, hot air balloon,
    grand piano, pocket watch, old camera, desk lamp, globe, suitcase, umbrella, armchair, bookshelf, lantern,
    candle, vase of tulips, bowl of lemons, loaf of bread, cup of coffee, wedding cake, stack of pancakes, bowl
    of ramen, apple pie, wheel of cheese, basket of mushrooms, glass of red wine, jar of honey, sushi platter,
    pizza, ice cream cone, fire truck, tractor, motorcycle, vintage car, spaceship, robot, submarine,
    helicopter, tram, skateboard, chess set, telescope, microscope, anvil, rocking chair, music box, compass,
    crown, wooden mask, glass marble, paper crane, snow globe, key, ladder, mailbox
    """
)
PLACES = words(
    """
    harbour, night market, bamboo forest, desert, glacier, coral reef, swamp, canyon, alpine meadow, vineyard,
    rice terrace, fishing village, cathedral, abandoned factory, subway station, airport, library, greenhouse,
    kitchen, attic, castle courtyard, temple garden, city rooftop, narrow alley, suspension bridge, waterfall,
    volcano, cave, beach, frozen lake, wheat field, lavender field, birch forest, space station, museum hall,
    theatre stage, workshop, barn, train platform, football stadium, playground, hospital corridor, diner,
    laundromat, bookshop
    """
)
DOING = words(
    """
    sleeping, running, reading a newspaper, looking out of a window, jumping over a puddle, waiting in the rain,
    laughing, climbing a tree, drinking tea, playing chess, carrying a lantern, riding a bicycle, dancing,
    singing, swimming, eating noodles, repairing a clock, writing a letter, hiding behind a curtain, watching
    the stars, sitting on a bench, holding a red umbrella, wearing a knitted scarf, wearing sunglasses, chasing
    a butterfly, balancing on a ball, planting a tree, feeding birds, building a sandcastle, looking into a
    mirror
    """
)
LOOKS = words(
    """
    tiny, enormous, old, young, wooden, glass, rusty, golden, striped, spotted, fluffy, shiny, transparent,
    broken, ornate, plain, knitted, ceramic, marble, colourful, pale, muddy, elegant, clumsy, sleepy, curious,
    proud, wet, frozen, overgrown
    """
)
COLOURS = words(
    """
    red, orange, yellow, green, turquoise, blue, violet, pink, brown, black, white, grey, silver, crimson, teal,
    beige, olive, navy blue
    """
)
LIGHT = words(
    """
    at sunrise, at noon, at dusk, at night, under a full moon, in thick fog, in heavy rain, in falling snow, in
    harsh sunlight, by candlelight, under neon signs, in soft morning light, under a stormy sky, during an
    eclipse, in autumn, in spring, in golden light, under the northern lights, lit from behind, in the shade of
    a tree
    """
)
STYLES = words(
    """
    a photograph of, an oil painting of, a watercolour of, a pencil sketch of, an ink drawing of, a woodcut of,
    a linocut of, a pastel drawing of, a charcoal drawing of, a comic panel of, a pixel art picture of, a 3D
    rendering of, a low poly model of, a clay model of, a paper collage of, a stained glass window of, a mosaic
    of, an embroidery of, a blueprint of, a children's book illustration of, a travel poster of, a black and
    white photograph of, a polaroid of, a macro photograph of, an aerial photograph of, a long exposure
    photograph of, an isometric drawing of, a marble statue of, a wood carving of, a mural of
    """
)
VIEWS = words(
    """
    close up, wide shot, seen from above, seen from below, side view, shallow depth of field, symmetrical
    composition, centred, on a white background, with a blurred background, highly detailed, minimalist, in
    muted colours, in vivid colours, with long shadows, with film grain, in the style of the 1970s, in the style
    of the 1920s
    """
)
NUMBERS = ("two", "three", "four", "five", "seven")
WHERE = ("next to", "on top of", "under", "behind", "in front of", "inside", "to the left of", "to the right of")
WORDS = words(
    """
    OPEN, HELLO, BAKERY, NORTH, THE END, FRESH FISH, NO ENTRY, WELCOME, JAZZ, 1984, EXIT, TEA ROOM, SLOW, DREAM,
    LIBRARY, HARBOUR, ROOM 12, SALE, SUMMER, QUIET PLEASE
    """
)
SIGNS = ("a shop sign", "a neon sign", "a wooden board", "a T-shirt", "a book cover", "a poster", "a birthday cake")


def article(phrase: str) -> str:
    """Return a phrase with its indefinite article."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """Return the plural of a noun, or of the word before its first preposition."""
    for between in (" of ", " with "):
        if between in noun:
            head, _, rest = noun.partition(between)
            return f"{plural(head)}{between}{rest}"
    irregular = {
        "mouse": "mice",
        "wolf": "wolves",
        "sheep": "sheep",
        "deer": "deer",
        "moose": "moose",
        "goldfish": "goldfish",
    }
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


def subject(pick: random.Random) -> str:
    """Return something to be seen."""
    noun = pick.choice(pick.choice((ANIMALS, PEOPLE, THINGS)))
    words = [pick.choice(LOOKS)] if pick.random() < 0.4 else []
    words += [pick.choice(COLOURS)] if noun in THINGS and pick.random() < 0.5 else []
    return " ".join([*words, noun])


def acting(pick: random.Random) -> str:
    """Return somebody who does something."""
    return f"{article(pick.choice(pick.choice((ANIMALS, PEOPLE))))} {pick.choice(DOING)}"


def counted(pick: random.Random) -> str:
    return f"{pick.choice(NUMBERS)} {pick.choice(COLOURS)} {plural(pick.choice(THINGS))}"


def related(pick: random.Random) -> str:
    return f"{article(subject(pick))} {pick.choice(WHERE)} {article(subject(pick))}"


def written(pick: random.Random) -> str:
    return f'{pick.choice(SIGNS)} that says "{pick.choice(WORDS)}"'


def placed(pick: random.Random) -> str:
    return f"{article(subject(pick))} in {article(pick.choice(PLACES))}"


def scenery(pick: random.Random) -> str:
    return f"{article(pick.choice(PLACES))} {pick.choice(LIGHT)}"


def simple(pick: random.Random) -> str:
    return article(subject(pick))


KINDS = {simple: 3, placed: 5, acting: 5, scenery: 3, related: 3, counted: 2, written: 1}


def prompt(pick: random.Random) -> str:
    """Return one prompt: what is seen, sometimes as what, in which light and how."""
    kind = pick.choices(list(KINDS), list(KINDS.values()))[0]
    text = kind(pick)
    if pick.random() < 0.55:
        text = f"{pick.choice(STYLES)} {text}"
    if kind is not scenery and pick.random() < 0.4:
        text = f"{text} {pick.choice(LIGHT)}"
    for view in pick.sample(VIEWS, pick.choice((0, 0, 1, 1, 2))):
        text = f"{text}, {view}"
    return text


def main() -> None:
    pick, found = random.Random(SEED), {}
    while len(found) < COUNT:
        found[prompt(pick)] = None
    OUTPUT.write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
