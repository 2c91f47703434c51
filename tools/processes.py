"""Several processes: the same shards as by one, whoever is killed on the way and whatever machine they are on; training, too.

    python tools/processes.py                  # all of it, three minutes or so on two cores
    python tools/processes.py killed machines  # some of it

Each test is a function below; what it checks is its docstring. The processes are started by `torchrun`, on the CPU.
"""
import os; os.environ |= dict(TQDM_DISABLE='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
import json, socket, subprocess, sys, tempfile, time
from functools import lru_cache
from pathlib import Path
from dinoinv import prepare_pairs, save_textures

root = Path(tempfile.mkdtemp())
photos = root/'photos'
OPTIONS = dict(patch=140, group_by='file', fractions=(.5,.25,.25), batch_size=3)
FLAGS = '--encoder mini --shards --shard_mb 1 --patch 140 --group_by file --fractions .5,.25,.25 --batch_size 3'.split()
LIMIT = 900 # seconds that a launch may take on a busy machine

def launch(*args, local=('--standalone','--nproc_per_node','2')):
    "Start `torchrun`"
    program = [sys.executable, '-m', 'torch.distributed.run', *local, *map(str, args)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def ended(job):
    "Exit status, output and errors of a launch"
    out,err = job.communicate(timeout=LIMIT)
    return job.returncode, out, err

def files(pairs): return {f'{o.parent.name}/{o.name}': o.read_bytes() for o in sorted(pairs.glob('*/0*'))}

@lru_cache
def by_one():
    "What one process makes"
    save_textures(photos, n=16, seed=0, size=140)
    prepare_pairs(photos, root/'by_one', 'mini', shards=True, shard_mb=1, **OPTIONS)
    return files(root/'by_one')

def same():
    "Two processes make what one makes, and one of them says so"
    want = by_one()
    rc,out,err = ended(launch('-m', 'dinoinv.dataset', photos, root/'by_two', *FLAGS))
    assert rc == 0, err
    assert files(root/'by_two') == want
    assert out.count('16 pairs made now') == 1, out

def killed():
    "A process that is killed ends the others; whole shards stay, and the next run makes the rest"
    want,program,pairs = by_one(),root/'dinoinv_prepare.py',root/'by_killed' # the command knows its name
    program.write_text('import os, signal\nfrom dinoinv import dataset, making\n'
        'def die(*args): os.kill(os.getpid(), signal.SIGKILL)\n'
        'if os.environ["RANK"] == "1": making.write_shard = die\n'
        'dataset.dinoinv_prepare()\n')
    rc,out,err = ended(launch(program, photos, pairs, *FLAGS))
    assert rc != 0 and not json.loads((pairs/'meta.json').read_text())['complete']
    left = {k: b for k,b in files(pairs).items() if k.endswith('.tar')}
    assert all(want[k] == b for k,b in left.items())
    rc,out,err = ended(launch('-m', 'dinoinv.dataset', photos, pairs, *FLAGS))
    assert rc == 0, err
    assert files(pairs) == want
    assert not [o for o in pairs.rglob('.*') if o.name != '.lock']

def refused():
    "What can't be done is said once, not once for each process"
    by_one()
    rc,out,err = ended(launch('-m', 'dinoinv.dataset', photos, root/'by_one', *FLAGS, '--seed', 1))
    said = [line for line in err.splitlines() if line.startswith('dinoinv_prepare:')]
    assert rc != 0 and len(said) == 1 and 'seed: 0 before, 1 now' in said[0], err

def machines():
    "Two launchers that know of each other an address alone, as on two machines, make what one process makes"
    want,pairs = by_one(),root/'by_machines'
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    where = f'--nnodes 2 --master_addr 127.0.0.1 --master_port {port} --nproc_per_node 1'.split()
    both = [launch('-m', 'dinoinv.dataset', photos, pairs, *FLAGS, local=(*where,'--node_rank',str(r))) for r in (0,1)]
    said = [ended(o) for o in both]
    assert [o[0] for o in said] == [0,0], said
    assert files(pairs) == want and said[1][1] == ''

def accelerated():
    "`accelerate launch` makes what one process makes"
    want,pairs = by_one(),root/'by_accelerate'
    command = 'accelerate.commands.launch --cpu --num_processes 2 -m dinoinv.dataset'.split()
    program = [sys.executable, '-m', *command, str(photos), str(pairs), *FLAGS]
    job = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rc,out,err = ended(job)
    assert rc == 0 and files(pairs) == want, err

def train(pairs, run, *args):
    "Train by two processes; return what the run noted of itself"
    small = '--epochs 1 --width 16 --blocks 1 --batch_size 4 --crop 112 --val_crop 112'.split()
    rc,out,err = ended(launch('-m', 'dinoinv.train', pairs, root/run, *small, *args))
    assert rc == 0, err
    assert (root/run/'best/model.safetensors').exists()
    return json.loads((root/run/'config.json').read_text())

def training():
    "Two processes train on shards"
    by_one()
    assert train(root/'by_one', 'run')['processes'] == 2

def in_order():
    "Two processes train shard by shard, each on its own shards"
    save_textures(root/'more_photos', n=64, seed=0, size=140)
    prepare_pairs(root/'more_photos', root/'more', 'mini', shards=True, shard_mb=1, **OPTIONS)
    assert train(root/'more', 'in_order', '--shuffle_buffer', '4')['config']['shuffle_buffer'] == 4

TESTS = dict(same=same, killed=killed, refused=refused, machines=machines,
             accelerated=accelerated, training=training, in_order=in_order)

if __name__ == '__main__':
    for name in sys.argv[1:] or TESTS:
        start = time.time()
        TESTS[name]()
        print(f'{name:<10} passed, {time.time()-start:.0f} s: {TESTS[name].__doc__}', flush=True)
