"""Which share of the power of six generated textures do features determine? Chapter 6's measure, of several encoders and controls.

    python bench/seen.py OUT --encoders A,B    A, B: other encoders, written by dinoinv_pretrain, `RUN/encoder`

`mini` stands first, then its control and two more of its architecture, with other random weights. Nothing is trained. Shares go to bench/seen.json.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
from functools import partial
from pathlib import Path
from fastcore.script import call_parse
from encoders import another_control
from dinoinv.core import save_json
from dinoinv.dataset import PairsDataset
from dinoinv.features import load_encoder
from dinoinv.textures import sample_pairs
from dinoinv.unseen import a_few, exact, split, unlike, walk

def seen(enc, x, pictures, steps):
    "What the plainest pictures with the same features have of `x`: 'seen', as chapter 6 defines it, and the power that is left in them"
    grey = x.mean((0,2,3), keepdim=True).expand_as(x)
    plain = walk(enc, x, unlike(partial(enc.grids, layers=None), x), grey, steps=steps)
    share,ci95 = split(x, plain, x, pictures, enc.patch)['seen']['all']
    return dict(seen=share, ci95=ci95, power=((plain-grey).square().sum()/(x-grey).square().sum()).item())

@call_parse
def main(out:str,         # folder for the weights of controls
         encoders:str=''): # folders or names of more encoders, separated by commas
    "See the head of this file"
    pairs = PairsDataset(sample_pairs(128, 308, 154, 'mini', group_by='file'), 'test', 112, random=False)
    x,pictures = a_few(pairs, [name.rsplit('__', 1)[0] for name in pairs.names], 6)
    names = {name: name for name in ('mini', *filter(None, encoders.split(',')), 'untrained:mini')}
    for seed in (1,2): names[f'control, seed {seed}'] = another_control(load_encoder('mini'), seed, Path(out)/str(seed))
    found = {}
    for who,name in names.items():
        enc = exact(load_encoder(name))
        found[who] = dict(weights=enc.weights) | {f'{steps} steps': seen(enc, x, pictures, steps) for steps in (100,500)}
        print(who, found[who], flush=True)
    save_json(Path(__file__).with_suffix('.json'), found)
