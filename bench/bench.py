"""How fast, how large, how good: the tables of bench/results.md.

    python bench/bench.py extract            images/s against a plain loop, and the share of the machine's peak
    python bench/bench.py train              samples/s of training, the share of peak, and of the time spent loading
    python bench/bench.py memory             peak memory of prepare and train, 200 pairs against 2,000
    python bench/bench.py disk               bytes on disk against the bytes of features and pictures
    python bench/bench.py shards             tars against folders: making, reading, training; how long the encoder is waited for
    python bench/bench.py stream             training from shards, drawn from all or shard by shard; from a folder and through an address
    python bench/bench.py listing            memory and time for a list of 200,000 pairs in shards
    python bench/bench.py compiled           what --compile costs at the start, and brings
    python bench/bench.py checks             the share of prepare and of an epoch that goes into hashes and checks of what was read
    python bench/bench.py infer              pictures/s of an evaluation, by batches and threads; how long one that is taken up needs
    python bench/bench.py pretrain           images/s of pretraining a `mini`, and the share of the machine's peak
    python bench/bench.py quality PHOTOS     decoders against baselines on held-out photos (each photo its own texture)

All but `pretrain`, `shards`, `stream`, `compiled` and `infer` (on `mini`) and `checks` (on both) run on the `untrained` encoder, whose arithmetic is DINOv2-Small's. Compare ratios within one run: machines differ.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import json, subprocess, sys, tempfile, threading, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from dinoinv.core import save_json
from dinoinv.dataset import PairsDataset, describe, load_batches, prepare_pairs
from dinoinv.features import amp_dtype, load_encoder
from dinoinv.inference import evaluate, score_table
from dinoinv.pairs import FILES
from dinoinv.textures import save_textures
from dinoinv.scores import fit_probes, predict
from dinoinv.train import PRESETS, make_optimizer, new_decoder, train_decoder

tmp = Path(tempfile.mkdtemp())

def best(f, n=3):
    "Shortest of `n` times that `f` takes, after a call to warm up"
    f(); ts = []
    for _ in range(n):
        t = time.perf_counter(); f(); ts.append(time.perf_counter()-t)
    return min(ts)

def peak(dtype, n=2048):
    "Measured FLOP/s of a large matrix product"
    a,b = (torch.randn(n,n).to(dtype) for _ in range(2))
    return 2*n**3/best(lambda: a@b)

def flops(f):
    "FLOPs of the matrix products and convolutions in `f()`"
    with FlopCounterMode(display=False) as c: f()
    return c.get_total_flops()

def extract():
    from transformers import BitImageProcessor
    enc = load_encoder('untrained'); plain = load_encoder('untrained', amp=False).model
    dtype = enc.dtype or torch.float32
    print(f'{"px":<6}{"plain loop":>12}{"encode, batch 16":>18}{"ratio":>7}{"GFLOP/image":>13}{f"share of {dtype} peak":>28}')
    for s in (224,518):
        ims = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (s,s,3), np.uint8)) for i in range(16)]
        proc = BitImageProcessor(size=dict(shortest_edge=s), crop_size=dict(height=s, width=s), image_mean=[.485,.456,.406], image_std=[.229,.224,.225])
        def loop():
            with torch.no_grad(): return [plain(**proc(im, return_tensors='pt')).last_hidden_state for im in ims[:4]]
        t0,t1 = best(loop)/4, best(lambda: enc.encode(ims))/16
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH): gf = flops(lambda: plain(torch.zeros(1,3,s,s)))
        print(f'{s:<6}{1/t0:>9.1f}/s{1/t1:>16.1f}/s{t0/t1:>7.2f}{gf/1e9:>13.1f}{gf/t1/peak(dtype):>28.0%}')

def pairs(n, patch, name='pairs'):
    "`n` pairs of `patch` px in a folder of their own"
    if not (tmp/name/'meta.json').exists():
        save_textures(tmp/f'{name}_photos', n, 0, patch)
        prepare_pairs(tmp/f'{name}_photos', tmp/name, 'untrained', patch, 'file')
    return tmp/name

def train():
    p = pairs(120, 252)
    for name,cfg in PRESETS.items():
        ds = PairsDataset(p, 'train', cfg.crop)
        probes = fit_probes(ds)
        model = new_decoder(cfg, ds.meta, probes).to(memory_format=torch.channels_last)
        opt,_ = make_optimizer(model, cfg, 1000)
        dtype = amp_dtype('cpu')
        def step(b):
            with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None): loss = (predict(model, b)-b['target']).abs().mean()
            loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(), 1.); opt.step(); opt.zero_grad()
        fixed = next(load_batches(ds, 16, True)); t = best(lambda: step(fixed), 8)
        gf = flops(lambda: step(fixed))
        load = work = n = 0
        for ds.epoch in range(1,4): # the cache is warm after the probes
            start = time.perf_counter()
            for b in load_batches(ds, 16, True):
                at = time.perf_counter(); load += at-start
                step(b); n += len(b['target'])
                start = time.perf_counter(); work += start-at
        print(f"{name:<9}{model.n_params/1e6:>6.2f} M  {16/t:>7.1f} samples/s in a step, {n/(load+work):>7.1f} with loading; {work/(load+work):.1%} of the time in forward, backward and step; "
              f"{gf/1e9:.1f} GFLOP a step, {gf/t/peak(dtype or torch.float32):.0%} of {dtype} peak")

def pretrain():
    from dinoinv.pretrain import PretrainConfig, Pretraining
    cfg = PretrainConfig(pictures=64)
    run = Pretraining(tmp/'mini', cfg)
    run.step = cfg.steps//2 # past the warm-up
    gf,t = flops(run.update),best(run.update, 5)
    dtype = amp_dtype('cpu') or torch.float32
    print(f'{cfg.batch_size/t:.1f} images/s, {t:.2f} s a step of {cfg.batch_size} pictures; {gf/1e9:.0f} GFLOP a step, {gf/t/peak(dtype):.0%} of {dtype} peak')

def rss(code):
    "Peak memory of a fresh Python that runs `code`, MB"
    code = 'import resource\n' + code + '\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)'
    return float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=dict(os.environ, TQDM_DISABLE='1')).stdout.split()[-1])

def memory():
    print(f'{"peak memory, MB":<34}{"200 pairs":>11}{"2,000 pairs":>13}')
    mb = dict(prepare=[], train=[])
    for n in (200,2000):
        save_textures(tmp/f'm{n}_photos', n, 0, 196)
        mb['prepare'].append(rss(f"from dinoinv.dataset import prepare_pairs\nprepare_pairs(r'{tmp}/m{n}_photos', r'{tmp}/m{n}', 'untrained', 196, 'file')"))
        mb['train'].append(rss(f"from dinoinv.train import *\ntrain_decoder(r'{tmp}/m{n}', r'{tmp}/m{n}_run', TrainConfig(epochs={2000//n}, cache_mb=32, val_every={2000//n}))"))
    for k,v in mb.items(): print(f'{"dinoinv_"+k+(" (cache_mb=32)" if k=="train" else ""):<34}{v[0]:>11.0f}{v[1]:>13.0f}')

def disk():
    p = pairs(60, 518, 'big')
    size = lambda pat: sum(f.stat().st_size for f in p.rglob(pat))
    grids = sum(torch.load(f, weights_only=True, mmap=True).numel()*2 for f in p.rglob('hr_features.pt'))
    total = size('*.*'); need = grids + size('target_rgb.png')
    print(f'{total/1e6:.1f} MB on disk; fp16 grids {grids/1e6:.1f} MB and PNGs {size("target_rgb.png")/1e6:.1f} MB: {total/need:.4f}×')

def tree(p): return [f for f in Path(p).rglob('*') if f.is_file()]

def shards(n_photos=96, turns=3):
    "Shards against folders, in one run: making, reading at random, training steps; and how long the encoder was waited for"
    photos = tmp/'s_photos'
    save_textures(photos, n_photos, 0, 252)
    enc,spent = load_encoder('mini'),[0.]
    encode = enc.encode
    def timed(*args):
        start = time.perf_counter()
        try: return encode(*args)
        finally: spent[0] += time.thread_time()-start
    enc.encode = timed
    print(f'{"":<9}{"made/s":>8}{"in model":>10}{"files":>7}{"MB":>7}{"read/s":>8}{"trained/s":>11}')
    for turn in range(turns): # each is shown, since the machine may not be quiet
        for name in ('folders','shards'):
            p,spent[0],start = tmp/f's_{name}{turn}',0.,time.perf_counter()
            n = prepare_pairs(photos, p, enc, 252, 'file', shards=name == 'shards', shard_mb=8)['made']
            made = time.perf_counter()-start
            ds = PairsDataset(p, 'train', 192, cache_mb=0)
            order = np.random.default_rng(0).permutation(len(ds)).tolist()
            read = len(ds)/best(lambda: [ds[i] for i in order], 1)
            cfg = PRESETS['default']
            model = new_decoder(cfg, ds.meta, fit_probes(ds))
            opt,_ = make_optimizer(model, cfg, 1000)
            def epoch():
                for b in load_batches(ds, 16, True):
                    (predict(model, b)-b['target']).abs().mean().backward(); opt.step(); opt.zero_grad()
            mb = sum(f.stat().st_size for f in tree(p))/1e6
            print(f'{name:<9}{n/made:>8.1f}{spent[0]/made:>10.1%}{len(tree(p)):>7}{mb:>7.1f}{read:>8.1f}{len(ds)/best(epoch, 1):>11.1f}', flush=True)

def stream(n_photos=96, turns=3):
    "Pairs loaded a second, by order and by where the shards are; nothing is kept in memory, and nothing is trained"
    save_textures(tmp/'photos', n_photos, 0, 252)
    prepare_pairs(tmp/'photos', tmp/'pairs', 'mini', 252, 'file', shards=True, shard_mb=4)
    here,there = tmp/'pairs',f'file://{tmp}/pairs' # an address, read through fsspec
    kinds = {'drawn from all': (here,0), 'shard by shard': (here,64), 'drawn, address': (there,0), 'shard by shard, address': (there,64)}
    for turn in range(turns):
        for name,(place,block) in kinds.items():
            ds = PairsDataset(place, 'train', 192, cache_mb=0, shuffle_buffer=block)
            print(f'{name:<26}{len(ds)/best(lambda: [None for _ in load_batches(ds, 16, True)], 1):>8.1f} pairs/s', flush=True)

def listing(n=200_000):
    "Resident memory of a dataset whose `meta.json` and indexes name `n` pairs; the shards themselves are empty"
    split,size = tmp/'long/train',[512, 10**6, '0123456789abcdef']
    split.mkdir(parents=True)
    names = [f'texture{i%500:03d}__photo{i:07d}__{i%3}_{i%2}' for i in range(n)]
    save_json(tmp/'long/meta.json', dict(complete=True, encoder=dict(unit=14), splits=dict(train={k: [518,518] for k in names})))
    for i in range(0, n, 500):
        (split/f'{i//500:05d}.tar').write_bytes(b'x'*10)
        index = {k: {f: size for f in (*FILES,'info.json')} for k in names[i:i+500]}
        (split/f'{i//500:05d}.json').write_text(json.dumps(dict(bytes=10, pairs=index)))
    code = f"""
import time
from dinoinv.dataset import PairsDataset, _by_shard
mb = lambda: int(open('/proc/self/statm').read().split()[1])*4096/1e6
before,start = mb(),time.perf_counter()
ds = PairsDataset(r'{tmp}/long', shuffle_buffer=1000)
named = mb()
_by_shard(ds)
print(f'{{(named-before)*1e6/len(ds):.0f}} bytes a pair for names and sizes, {{(mb()-before)*1e6/len(ds):.0f}} with the indexes; {{time.perf_counter()-start:.1f}} s')
"""
    subprocess.run([sys.executable, '-c', code], check=True)

def compiled():
    "Seconds to compile, and the gain in images/s at 224 px"
    enc,x = load_encoder('mini'),torch.rand(16,3,224,224)
    before = best(lambda: enc.encode(x))
    enc.model.compile()
    start = time.perf_counter(); enc.encode(x); first = time.perf_counter()-start
    print(f'first call {first:.0f} s, then {before/best(lambda: enc.encode(x)):.2f} times as fast')

def clocked(spent, names):
    "Have the functions `names`, {module: [name]}, add their CPU time to `spent`; one inside another is not counted twice"
    inside = threading.local()
    def wrap(f):
        def timed(*args, **kwargs):
            if getattr(inside, 'yes', False): return f(*args, **kwargs)
            inside.yes,start = True,time.thread_time()
            try: return f(*args, **kwargs)
            finally:
                inside.yes = False
                spent[0] += time.thread_time()-start
        return timed
    for module,those in names.items():
        for k in those: setattr(module, k, wrap(getattr(module, k)))

def checks():
    "CPU time of hashes, finiteness and form checks, in threads beside the encoder too"
    from dinoinv import dataset, making, pairs, scores, train
    spent = [0.]
    clocked(spent, {pairs: ['digest','is_finite','_grid_fault','_noted_unit'], making: ['fingerprint','is_finite','pair_fault'],
                    dataset: ['_check_places'], train: ['_check_finite'], scores: ['info_digest']})
    save_textures(tmp/'photos', 48, seed=0, size=504)
    for name in 'untrained','mini':
        enc = load_encoder(name)
        spent[0],start = 0.,time.perf_counter()
        made = prepare_pairs(tmp/'photos', tmp/f'checks_{name}', enc, 252, 'file')['made']
        print(f'prepare with {name}, {made} pairs: {spent[0]/(time.perf_counter()-start):.2%} of the time')
    for epochs in 1,3:
        spent[0],start = 0.,time.perf_counter()
        train_decoder(tmp/'checks_mini', tmp/f'run{epochs}', replace(PRESETS['default'], epochs=epochs, val_crop=252))
        took = time.perf_counter()-start
        print(f'train, {epochs} epochs with all that comes before: {spent[0]:.3f} of {took:.1f} s, {spent[0]/took:.2%}')

def infer(turns=3):
    "An evaluation one by one and in batches, and one that is taken up when all is there, in one run"
    save_textures(tmp/'i_photos', 100, 0, 252)
    enc = load_encoder('mini')
    prepare_pairs(tmp/'i_photos', tmp/'i_pairs', enc, 252, 'file', (.3,.05,.65))
    train_decoder(tmp/'i_pairs', tmp/'i_run', replace(PRESETS['default'], epochs=1))
    ways = {'one by one': (1,1,False), 'batches of 8, 2 threads': (8,2,False), 'batches of 16, 4 threads': (16,4,False), 'taken up, all there': (8,2,True)}
    go = lambda batch_size,workers,resume: evaluate(tmp/'i_run/best', tmp/'i_pairs', tmp/'i_out', batch_size=batch_size, workers=workers, resume=resume)
    go(8,2,False)
    print(f'{"pictures/s":<26}' + ''.join(f'{f"turn {i}":>9}' for i in range(turns)))
    for name,way in ways.items():
        speeds = []
        for _ in range(turns): start = time.perf_counter(); n = go(*way)['n']; speeds.append(n/(time.perf_counter()-start))
        print(f'{name:<26}' + ''.join(f'{o:>9.1f}' for o in speeds), flush=True)

def quality(photos, epochs=None):
    meta = prepare_pairs(photos, tmp/'q', 'untrained', 252, 'file'); print(describe(meta), '\n')
    for name,cfg in PRESETS.items():
        start = time.perf_counter()
        train_decoder(tmp/'q', tmp/name, replace(cfg, epochs=epochs or cfg.epochs))
        print(f'preset {name}, {epochs or cfg.epochs} epochs, trained in {(time.perf_counter()-start)/60:.1f} min')
        print(score_table(evaluate(tmp/name/'best', tmp/'q', tmp/f'{name}_out')), '\n', flush=True)

@call_parse
def main(what:str,          # extract, train, memory, disk, shards, stream, listing, compiled, checks, infer, pretrain or quality
         photos:str=None,   # for quality: a folder of photos
         epochs:int=None):  # for quality: instead of the preset's
    "Benchmarks of dinoinv; see the head of this file"
    print(f'{torch.get_num_threads()} threads, torch {torch.__version__}, {torch.cpu.get_capabilities().get("cpu_name", "")}')
    quality(photos, epochs) if what == 'quality' else globals()[what]()
