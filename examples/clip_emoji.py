"""CLIP in miniature: a tower for pictures of emoji, one for their names, and FLO or InfoNCE between them.

Names are counts of character n-grams. Held-out emoji are looked up by name among all held-out pictures: recall@1 and @5. What
the towers share is read on held-out rows by InfoNCE, a lower bound for any critic, the same for both losses. The pictures come
from the font NotoColorEmoji.ttf (Debian: apt-get install fonts-noto-color-emoji); without it the second tower reads the names
in German, and the towers learn to translate.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from torch.nn.functional import normalize

from flomi import losses

try:
    import emoji
except ImportError:
    raise SystemExit(
        "this example needs names of emoji: python -m pip install 'flomi[examples]' (or: pip install emoji)"
    ) from None

SIZE, WIDTH, EPOCHS, BATCH = 24, 64, 15, 64

# One code point each: no flags, skin tones or professions, whose copies would stand in both parts.
emoji.config.load_language("de")
symbols = [
    symbol
    for symbol, facts in emoji.EMOJI_DATA.items()
    if len(symbol.strip("\ufe0f")) == 1
    and facts["status"] == emoji.STATUS["fully_qualified"]
    and "de" in facts
]


def names(language: str) -> list[str]:
    return [emoji.EMOJI_DATA[symbol][language].strip(":").replace("_", " ").lower() for symbol in symbols]


def draw(symbol: str) -> np.ndarray:
    picture = Image.new("RGB", (136, 128), "white")
    ImageDraw.Draw(picture).text((0, 0), symbol, font=font, embedded_color=True)
    return np.asarray(picture.resize((SIZE, SIZE)), dtype=np.float32) / 255


try:
    font = ImageFont.truetype("NotoColorEmoji.ttf", 109)  # the only size that it has
except OSError:
    font = None
else:
    drawn = {symbol: draw(symbol) for symbol in symbols}
    missing = draw("\ufffe")  # what is newer than the font looks like this
    symbols = [s for s in symbols if (drawn[s] != missing).any()]

order = np.random.default_rng(0).permutation(len(symbols))
test, train = (torch.from_numpy(part) for part in np.split(order, [len(order) // 5]))


def ngrams(language: str) -> tuple[Tensor, nn.Module]:
    """Weights of n-grams that occur in training names, and a tower that reads them."""
    every, counts = (
        names(language),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=2000),
    )
    counts.fit([every[i] for i in train])
    x = torch.tensor(counts.transform(every).toarray(), dtype=torch.float32)
    return x, nn.Sequential(nn.Dropout(0.3), nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Linear(128, WIDTH))


def pictures() -> tuple[Tensor, nn.Module]:
    x = torch.tensor(np.stack([drawn[s] for s in symbols])).permute(0, 3, 1, 2)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    return x, nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(32 * (SIZE // 4) ** 2, WIDTH))


def run(loss: losses.ContrastiveLoss) -> str:
    torch.manual_seed(0)
    (x, tower_x), (y, tower_y) = ngrams("en"), ngrams("de") if font is None else pictures()
    parameters = [p for module in (tower_x, tower_y, loss) for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for rows in train[torch.randperm(len(train))].split(BATCH)[:-1]:
            optimiser.zero_grad()
            loss(tower_x(x[rows]), tower_y(y[rows])).backward()
            optimiser.step()
    with torch.no_grad():
        zx, zy = (normalize(tower.eval()(v[test])) for tower, v in ((tower_x, x), (tower_y, y)))
    found = (zx @ zy.T).argsort(1, descending=True)
    rank = (found == torch.arange(len(test))[:, None]).int().argmax(1)
    recalls = ", ".join(f"recall@{k} {100 * (rank < k).float().mean():.1f} %" for k in (1, 5))
    return f"{recalls}; MI {loss.mi():.2f} nats in training, at least {held_out(zx, zy):.2f} held out"


def held_out(zx: Tensor, zy: Tensor) -> float:
    """InfoNCE in nats on one half of the rows, at the temperature that suits the other half."""
    half = len(zx) // 2
    readers = [losses.InfoNCELoss(temperature=tau) for tau in np.geomspace(0.05, 1, 20)]
    best = max(readers, key=lambda reader: float(reader.value(zx[:half], zy[:half])))
    return float(best.value(zx[half:], zy[half:]))


kind = "translated names" if font is None else "emoji"
print(f"{len(train)} {kind} to learn from, {len(test)} held out, where chance is {100 / len(test):.1f} %")
print("InfoNCE", run(losses.InfoNCELoss(WIDTH, learn_temperature=True, symmetric=True)))
print("FLO    ", run(losses.FLOLoss(WIDTH, learn_temperature=True, symmetric=True)))
