"""What limits a reader of features: its photos, or the features? Closed forms fitted on more and more photos.

    python bench/curve.py PAIRS [--hidden PAIRS]

Each probe is scored on some of the patches that it was fitted on, and on the validation patches. HIDDEN are pairs of the same photos that hold
the last hidden state (dinoinv_prepare --layers 6), before the last LayerNorm: what a linear probe reads there is what a reader could have if it knew each token's scale.
Numbers go to bench/curve.json.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import argparse
from pathlib import Path
from dinoinv.core import evenly, save_json
from dinoinv.dataset import PairsDataset
from dinoinv.decoder import LinearProbe
from dinoinv.features import encoder_line
from dinoinv.pairs import load_batches
from dinoinv.scores import average
from dinoinv.train import fit_probes, validate

def photo_of(name): return name.split('__')[0]

def of_photos(pairs, chosen):
    "Training patches of these photos"
    every = PairsDataset(pairs, 'train')
    return PairsDataset(pairs, 'train', skip=[name for name in every.names if photo_of(name) not in chosen])

def some_of(pairs, ds, n=150):
    "So many whole patches of a dataset, evenly"
    chosen = {*evenly(ds.names, n)}
    return PairsDataset(pairs, 'train', None, random=False, skip=[name for name in ds.names if name not in chosen] + skipped(pairs, ds))

def skipped(pairs, ds): return [name for name in PairsDataset(pairs, 'train').names if name not in {*ds.names}]

def scored(probe, *datasets): return [average(validate(probe, ds))['psnr'] for ds in datasets]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('pairs', help='folder written by dinoinv_prepare')
    p.add_argument('--hidden', help='pairs of the last hidden state of the same photos')
    o = p.parse_args()
    whole,val = PairsDataset(o.pairs, 'train'),PairsDataset(o.pairs, 'val', None, random=False)
    photos = sorted({photo_of(name) for name in whole.names})
    rows = []
    for share in (8,4,2,1):
        chosen = {*evenly(photos, len(photos)//share)}
        ds = of_photos(o.pairs, chosen)
        row = dict(photos=len(chosen), patches=len(ds))
        for name,probe in fit_probes(ds).items(): row[name] = dict(zip(('fitted','validation'), scored(probe, some_of(o.pairs, ds), val)))
        if o.hidden:
            of_hidden = of_photos(o.hidden, chosen)
            batches = ((b['features'], b['target']) for b in load_batches(of_hidden.uncropped(), 8))
            probe = LinearProbe.fit(batches, ds.unit, reach=1)
            row['before_layernorm'] = dict(zip(('fitted','validation'), scored(probe, some_of(o.hidden, of_hidden), PairsDataset(o.hidden, 'val', None, random=False))))
        rows.append(row)
        print(row, flush=True)
        save_json(Path(__file__).with_suffix('.json'), dict(encoder=encoder_line(whole.meta['encoder']), validation=len(val), rows=rows))

if __name__ == '__main__': main()
