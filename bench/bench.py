"""How fast and how large: each function below measures one thing and returns numbers, which go to bench/bench.json.

    python bench/bench.py                            # all but quality
    python bench/bench.py extract memory             # some of it; the other sections of the file stay
    python bench/bench.py quality --photos PHOTOS    # decoders against baselines on held-out photos, each its own texture
    python bench/bench.py --against DIR              # speed beside an older checkout in DIR, in turns: ratios new/old
    python bench/bench.py feed --against DIR         # one of them

`extract`, `train` and `memory` run on the `untrained` encoder, whose arithmetic is DINOv2-Small's, the others on `mini`.
Compare ratios within one run: machines differ.
"""
import os
os.environ.setdefault('TQDM_DISABLE', '1')
import argparse, json, subprocess, sys, tempfile, time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from statistics import median
import numpy as np, torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from dinoinv import PairsDataset, load_batches, prepare_pairs
from dinoinv.textures import save_textures
from dinoinv.train import PRESETS, TrainConfig, train_decoder

HERE = Path(__file__).resolve().parent
tmp = Path(tempfile.mkdtemp())

def seconds(f):
    "How long `f` takes"
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def cpu_seconds(f):
    "The processor time that `f` takes, in all threads: it says something on a busy machine, too"
    start = time.process_time()
    f()
    return time.process_time()-start

def best(f, n=3):
    "Shortest of `n` times that `f` takes, after a call to warm up"
    f()
    return min(seconds(f) for _ in range(n))

def peak(dtype, n=2048):
    "Measured FLOP/s of a large matrix product"
    a,b = (torch.randn(n, n).to(dtype) for _ in range(2))
    return 2*n**3/best(lambda: a@b)

def flops(f):
    "FLOPs of the matrix products and convolutions in `f()`"
    with FlopCounterMode(display=False) as count: f()
    return count.get_total_flops()

def pairs_of(n, side, name, encoder='mini', **options):
    "A folder of `n` pairs of generated textures"
    if not (tmp/name).exists():
        save_textures(tmp/f'{name}-photos', n, 0, side)
        prepare_pairs(tmp/f'{name}-photos', tmp/name, encoder, patch=side, group_by='file', **options)
    return tmp/name


# ── what `--against` compares: only calls that older versions have, too ──────────────────────────────────────────────────

def preparation(n=60, side=518):
    "Patches that `prepare_pairs` makes in a CPU-second"
    photos = tmp/'preparation'
    if not photos.exists(): save_textures(photos, n, 0, side)
    out = tempfile.mkdtemp(dir=tmp)
    took = cpu_seconds(lambda: prepare_pairs(photos, f'{out}/pairs', 'mini', patch=side, group_by='file'))
    return {'patches/CPU-s': n/took}

def training(n=200, side=252, epochs=5):
    "Crops in a CPU-second of an epoch of `train_decoder`: the difference of a long and a short training"
    pairs = pairs_of(n, side, 'training')
    crops = len(PairsDataset(pairs))
    def took(k):
        cfg = TrainConfig(epochs=k, val_every=k)
        return cpu_seconds(lambda: train_decoder(pairs, f'{tempfile.mkdtemp(dir=tmp)}/run', cfg))
    return {'crops/CPU-s': epochs*crops/(took(1+epochs)-took(1))}

def reading(n=20, side=1500):
    "JPEG photos that are read in a CPU-second, as pixels in float"
    try: from dinoinv.photos import open_photo, to_tensor
    except ImportError: from dinoinv.images import open_photo, to_tensor # in older versions
    def jpeg(seed):
        small = np.random.default_rng(seed).integers(0, 255, (side//8, side//8, 3), np.uint8)
        file = BytesIO()
        Image.fromarray(small).resize((side,side)).save(file, 'jpeg', quality=90)
        return file.getvalue()
    files = [jpeg(i) for i in range(n)]
    def read():
        for file in files: to_tensor(open_photo(BytesIO(file)))
    return {'photos/CPU-s': n/min(cpu_seconds(read) for _ in range(3))}

def feed(n=64, side=518):
    "JPEG photos that one process makes pairs of, with an encoder that costs nothing: in a second, in a CPU-second of all its threads, and in one of the main thread alone"
    from dinoinv.features import load_encoder
    from dinoinv.textures import sample_textures
    photos = tmp/'feed'
    if not photos.exists():
        photos.mkdir()
        for i,texture in enumerate(sample_textures(n, 0, side)): texture.image.save(photos/f'{i}.jpg', quality=95)
    enc = load_encoder('untrained')
    features = torch.randn(enc.dim, side//enc.patch, side//enc.patch).half()
    enc.device = 'meta' # of PyTorch's: nothing is copied to it, and nothing computed there
    enc.grids = lambda x, layers, fuse: features.expand(len(x), -1, -1, -1)
    clocks = {'photos/s': time.perf_counter, 'photos/CPU-s': time.process_time, 'photos/CPU-s of the main thread': time.thread_time}
    found = {}
    for kind in ('folders','shards')*3:
        start = {unit: clock() for unit,clock in clocks.items()}
        prepare_pairs(photos, f'{tempfile.mkdtemp(dir=tmp)}/pairs', enc, patch=side, group_by='file', fractions=(1,0,0), shards=kind == 'shards')
        for unit,clock in clocks.items(): found[f'{kind}, {unit}'] = max(found.get(f'{kind}, {unit}', 0), n/(clock()-start[unit]))
    return found

COMPARED = dict(preparation=preparation, training=training, reading=reading, feed=feed)

def measured_by(checkout, name):
    "What the code of a checkout measures, in a process of its own"
    env = os.environ | dict(PYTHONPATH=str(checkout))
    program = [sys.executable, __file__, '--only', name]
    done = subprocess.run(program, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f'{checkout}, {name}:\n{done.stderr[-3000:]}')
    return json.loads(done.stdout.splitlines()[-1])

def compare(old, turns, names):
    "Both checkouts in turns, and the median of the ratios new/old"
    found = {}
    for name in names or COMPARED:
        turned = [(measured_by(HERE.parent, name), measured_by(old, name)) for _ in range(turns)]
        found[name] = {}
        for unit in turned[0][0]:
            rates = [(new[unit],before[unit]) for new,before in turned]
            new,before = map(max, zip(*rates))
            found[name][unit] = dict(new=new, old=before, ratio=median(a/b for a,b in rates))
            print(f"{name:<12} new {new:8.2f} {unit}, old {before:8.2f}, new/old {found[name][unit]['ratio']:.2f}", flush=True)
    return found


# ── photos ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

def photos(n=10, turns=9):
    "CPU time of reading an ordinary JPEG with EXIF data and a profile, over that of Pillow, which turns it (`pillow`) or doesn't (`plain`)"
    from PIL import ImageCms, ImageOps
    from dinoinv.photos import open_photo
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    def jpeg(seed, side):
        small = np.random.default_rng(seed).integers(0, 255, (side//8, side//8, 3), np.uint8)
        exif = Image.Exif()
        exif[0x010F],exif[0x0112] = 'a camera',1
        file = BytesIO()
        Image.fromarray(small).resize((side,side)).save(file, 'jpeg', quality=90, exif=exif, icc_profile=srgb)
        return file.getvalue()
    def plain(file): return Image.open(BytesIO(file)).convert('RGB')
    def pillow(file): return ImageOps.exif_transpose(Image.open(BytesIO(file))).convert('RGB')
    ways = dict(ours=open_photo, pillow=pillow, plain=plain)
    found = {}
    for side in (300,640,1500):
        files = [jpeg(i, side) for i in range(n)]
        took = {name: [] for name in ways}
        for _ in range(turns):
            for name,way in ways.items(): took[name].append(cpu_seconds(lambda: [way(file) for file in files])/n)
        least = {name: min(times) for name,times in took.items()}
        found[f'{side} px'] = dict(ms=1e3*least['ours'], over_pillow=least['ours']/least['pillow'], over_plain=least['ours']/least['plain'])
    return found


# ── the encoder, a training step ─────────────────────────────────────────────────────────────────────────────────────────

def extract():
    "Images/s of `encode`, in float32 and in half precision, beside a plain loop over transformers, and its share of the machine's peak in float32"
    from transformers import BitImageProcessor
    from dinoinv.features import load_encoder
    enc,half = (load_encoder('untrained', amp=amp) for amp in (False,True))
    plain = enc.model
    found = {}
    for side in (224,518):
        images = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (side,side,3), np.uint8)) for i in range(16)]
        processor = BitImageProcessor(size=dict(shortest_edge=side), crop_size=dict(height=side, width=side))
        @torch.no_grad()
        def loop():
            for image in images[:4]: plain(**processor(image, return_tensors='pt'))
        looped = 4/best(loop)
        encoded,rounded = (16/best(lambda: e.encode(images)) for e in (enc,half))
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            work = flops(lambda: plain(torch.zeros(1, 3, side, side)))
        found[f'{side} px'] = {'plain loop, images/s': looped, 'encode, images/s': encoded, 'over the loop': encoded/looped, 'with amp, images/s': rounded, 'over float32': rounded/encoded,
                               'half precision': half.precision, 'GFLOP an image': work/1e9, 'share of peak': work*encoded/peak(torch.float32)}
    return found

def train():
    "Samples/s of a training step, alone and with loading, and its share of the machine's peak"
    from dinoinv.decoder import Decoder, n_params, predict
    from dinoinv.features import amp_dtype
    pairs,dtype = pairs_of(48, 252, 'train', 'untrained'),amp_dtype('cpu')
    found = {}
    for preset,cfg in PRESETS.items():
        ds = PairsDataset(pairs, 'train', cfg.crop)
        channels = len(ds[0]['features'])
        model = Decoder(channels, width=cfg.width, blocks=cfg.blocks, head=cfg.head, unit=ds.unit)
        optimizer = torch.optim.Adam(model.parameters(), cfg.lr)
        def step(batch):
            with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None): loss = (predict(model, batch)-batch['target']).abs().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        def epoch():
            for batch in load_batches(ds, 16, True): step(batch)
        batch = next(iter(load_batches(ds, 16, True)))
        took,work = best(lambda: step(batch), 8),flops(lambda: step(batch))
        found[preset] = {'million parameters': n_params(model)/1e6, 'samples/s in a step': 16/took, 'samples/s with loading': len(ds)/best(epoch),
                         'GFLOP a step': work/1e9, 'share of peak': work/took/peak(dtype or torch.float32), 'dtype': str(dtype)}
    return found

def pretraining(steps=8):
    "Images/s of pretraining a `mini`: the difference of a long and a short one"
    from dinoinv.pretrain import PretrainConfig, pretrain
    def took(k): return seconds(lambda: pretrain(f'{tempfile.mkdtemp(dir=tmp)}/run', PretrainConfig(steps=k, pictures=64, asked=24)))
    return {'images/s': steps*PretrainConfig().batch_size/(took(2+steps)-took(2))}


# ── memory and disk ──────────────────────────────────────────────────────────────────────────────────────────────────────

def megabytes(code):
    "Peak memory of a fresh Python that runs `code`"
    code = f'import resource\n{code}\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)'
    return float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()[-1])

def memory():
    "Peak memory of prepare and train, 200 pairs against 2,000, folders and shards"
    found = {}
    for n in (200,2000):
        save_textures(tmp/f'm{n}', n, 0, 196)
        for kind in ('folders','shards'):
            pairs,shards = tmp/f'm{n}-{kind}',kind == 'shards'
            prepare = f"from dinoinv import prepare_pairs\nprepare_pairs(r'{tmp}/m{n}', r'{pairs}', 'untrained', patch=196, group_by='file', shards={shards}, shard_mb=16)"
            train = f"from dinoinv.train import *\ntrain_decoder(r'{pairs}', r'{pairs}-run', TrainConfig(epochs={2000//n}, cache_mb=32, val_every={2000//n}, shuffle_buffer={64*shards}))"
            found.setdefault(f'prepare, {kind}, MB', {})[f'{n} pairs'] = megabytes(prepare)
            found.setdefault(f'train, {kind}, MB', {})[f'{n} pairs'] = megabytes(train)
    return found

def disk():
    "Bytes on disk against those of fp16 features and PNGs"
    pairs = pairs_of(60, 518, 'disk')
    def size(pattern): return sum(f.stat().st_size for f in pairs.rglob(pattern) if f.is_file())
    features = sum(2*torch.load(f, weights_only=True, mmap=True).numel() for f in pairs.rglob('hr_features.pt'))
    return {'features, MB': features/1e6, 'PNGs, MB': size('*.png')/1e6, 'on disk, times that': size('*')/(features+size('*.png'))}


# ── shards, evaluation, quality ──────────────────────────────────────────────────────────────────────────────────────────

def shards(n=96, side=252):
    "Folders, shards and shards at an address (`file://`, through fsspec): pairs made and loaded a second"
    save_textures(tmp/'s', n, 0, side)
    found = {}
    for kind in ('folders','shards'):
        took = seconds(lambda: prepare_pairs(tmp/'s', tmp/f's-{kind}', 'mini', patch=side, group_by='file', shards=kind == 'shards', shard_mb=4))
        found[kind] = {'pairs made/s': n/took, 'files': sum(f.is_file() for f in (tmp/f's-{kind}').rglob('*'))}
    places = dict(folders=(tmp/'s-folders', 0), shards=(tmp/'s-shards', 64), address=(f'file://{tmp}/s-shards', 64))
    for kind,(place,shuffle_buffer) in places.items():
        ds = PairsDataset(place, 'train', 192, cache_mb=0)
        def load():
            for _ in load_batches(ds, 16, True, shuffle_buffer=shuffle_buffer): pass
        found.setdefault(kind, {})['pairs loaded/s'] = sum(len(b['target']) for b in load_batches(ds, 16, True, shuffle_buffer=shuffle_buffer))/best(load)
    return found

def inference():
    "Pictures/s of an evaluation, one by one and in batches, and of one that is taken up when all is there"
    from dinoinv.inference import evaluate
    pairs = pairs_of(100, 252, 'inference', fractions=(.3,.05,.65))
    train_decoder(pairs, tmp/'inference-run', TrainConfig(epochs=1))
    ways = {'one by one': dict(batch_size=1, workers=1), 'batches of 8, 2 threads': {}, 'taken up, all there': dict(resume=True)}
    def rate(options):
        start = time.perf_counter()
        n = evaluate(tmp/'inference-run/best', pairs, tmp/'inference-out', **options)['n']
        return n/(time.perf_counter()-start)
    rate({})
    return {name: {'pictures/s': max(rate(options) for _ in range(3))} for name,options in ways.items()}

def quality(photos, epochs=None):
    "Both presets against the baselines on photos"
    from dinoinv.inference import evaluate, score_table
    prepare_pairs(photos, tmp/'q', 'untrained', patch=252, group_by='file')
    for preset,cfg in PRESETS.items():
        train_decoder(tmp/'q', tmp/f'q-{preset}', replace(cfg, epochs=epochs or cfg.epochs))
        print(f'preset {preset}, {epochs or cfg.epochs} epochs')
        print(score_table(evaluate(tmp/f'q-{preset}/best', tmp/'q', tmp/f'q-{preset}-out')), '\n', flush=True)

SECTIONS = COMPARED | {f.__name__: f for f in (photos, extract, train, memory, disk, shards, inference, pretraining)}


def rounded(value):
    if isinstance(value, dict): return {k: rounded(v) for k,v in value.items()}
    return float(f'{value:.4g}') if isinstance(value, float) else value

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', nargs='*', help=f'{", ".join(SECTIONS)} or quality; default: all but quality')
    p.add_argument('--against', type=Path, help='an older checkout to compare with')
    p.add_argument('--turns', type=int, default=3, help='how often each of both is measured')
    p.add_argument('--only', choices=[*COMPARED], help='print one section as JSON, write nothing')
    p.add_argument('--photos', help='for quality')
    p.add_argument('--epochs', type=int, help="for quality, instead of the preset's")
    p.add_argument('--out', type=Path, default=HERE/'bench.json')
    o = p.parse_args()
    if o.only: return print(json.dumps(SECTIONS[o.only]()))
    if o.what == ['quality']: return quality(o.photos, o.epochs)
    from dinoinv.core import save_json, versions
    found = json.loads(o.out.read_text()) if o.out.exists() else {}
    about = dict(threads=torch.get_num_threads(), cpu=torch.cpu.get_capabilities().get('cpu_name', ''), versions=versions())
    def keep(name, what, numbers):
        found[name] = dict(what=what, numbers=rounded(numbers)) | about
        save_json(o.out, found)
        print(name, json.dumps(rounded(numbers), indent=1, ensure_ascii=False), flush=True)
    if o.against:
        commit = subprocess.run(['git', '-C', o.against, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True).stdout.strip()
        keep('against', f'Speed beside the older version {commit}, in turns', compare(o.against, o.turns, o.what))
    else:
        for name in o.what or SECTIONS: keep(name, SECTIONS[name].__doc__, SECTIONS[name]())

if __name__ == '__main__': main()
