"""A hub on loopback: what `huggingface_hub` asks for, answered by Python's own HTTP server; and what dinoinv makes of the answers.

    python tools/hub.py serve    # random weights under the name and in the format of facebook/dinov2-small, until interrupted
    python tools/hub.py check    # the README's commands against it, and what can go wrong on the way: under two minutes on one core

Each check is a function below; what it checks is its docstring. The weights are random, so no number here is about DINOv2.
"""
import base64, hashlib, json, os, re, sys, tempfile, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

class Model:
    "A repository: its commits, each with its files, and how it behaves"
    def __init__(self, files=()):
        self.commits,self.refusal,self.breaks = {}, None, 0 # status and code for who wants a file; downloads that break off
        self.commit(dict(files))

    def commit(self, files):
        "A new commit, which `main` then means"
        text = json.dumps({name: hashlib.sha256(content).hexdigest() for name,content in sorted(files.items())})
        self.sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[self.sha] = files

class Answer(BaseHTTPRequestHandler):
    "The answer to a request"
    def log_message(self, *args): pass # `server.log` has them

    def reply(self, status, content=b'', **headers):
        if not isinstance(content, bytes): content = json.dumps(content).encode()
        self.send_response(status)
        headers = dict(Content_Length=len(content)) | headers
        for name,value in headers.items(): self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(content)

    def refuse(self, status, code): self.reply(status, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.server.log.append((self.command, path, self.headers.get('Range')))
        if self.server.asleep: time.sleep(self.server.asleep)
        _,api,name,_,what,revision,_,file = re.fullmatch(
            '(/(api/models))?/([^/]+/[^/]+)(/(revision|tree|resolve)/([^/]+)(/(.*))?)?', path).groups()
        if name in self.server.moved:
            return self.reply(307, Location=quote(path.replace(name, self.server.moved[name])))
        model = self.server.models.get(name)
        if model is None: return self.refuse(401, 'RepoNotFound') # the hub says so to those that it doesn't know
        sha = model.sha if revision in (None,'main') else revision
        if sha not in model.commits: return self.refuse(404, 'RevisionNotFound')
        files = model.commits[sha]
        if what == 'tree':
            return self.reply(200, [dict(type='file', path=name, size=len(content), oid=hashlib.sha1(content).hexdigest())
                                    for name,content in files.items()])
        if api: return self.reply(200, dict(id=name, sha=sha, siblings=[dict(rfilename=name) for name in files]))
        if model.refusal: return self.refuse(*model.refusal)
        if file not in files: return self.refuse(404, 'EntryNotFound')
        self.send_file(model, sha, files[file])

    do_HEAD = do_GET

    def send_file(self, model, sha, content):
        about = dict(ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=sha, Accept_Ranges='bytes')
        start,whole = re.match(r'bytes=(\d+)-', self.headers.get('Range', '')), len(content)
        if start:
            first = int(start[1])
            return self.reply(206, content[first:], Content_Range=f'bytes {first}-{whole-1}/{whole}', **about)
        if model.breaks and self.command == 'GET' and whole > 2**20:
            model.breaks -= 1
            content = content[:whole//2]
        self.reply(200, content, **about | dict(Content_Length=whole))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        path = unquote(urlsplit(self.path).path)
        self.server.log.append((self.command, path, None))
        if path == '/api/validate-yaml': return self.reply(200, {})
        if path == '/api/repos/create':
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}"
            self.server.models.setdefault(name, Model())
            return self.reply(200, dict(url=f'{self.server.address}/{name}'))
        name,what = re.fullmatch('/api/models/([^/]+/[^/]+)/(preupload|commit)/main', path).groups()
        if what == 'preupload':
            paths = [file['path'] for file in json.loads(body)['files']]
            return self.reply(200, dict(files=[dict(path=p, uploadMode='regular', shouldIgnore=False) for p in paths]))
        model = self.server.models[name]
        added = [line['value'] for line in map(json.loads, body.splitlines()) if line['key'] == 'file']
        model.commit(model.commits[model.sha] | {file['path']: base64.b64decode(file['content']) for file in added})
        self.reply(200, dict(commitUrl=f'{self.server.address}/{name}/commit/{model.sha}', commitOid=model.sha))

class Hub(ThreadingHTTPServer):
    "A hub that holds `models` by name; those in `moved` have another name now; `asleep` so many seconds before each answer"
    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(('127.0.0.1',port), Answer)
        self.address = f'http://127.0.0.1:{self.server_port}'
        self.models,self.moved,self.log,self.asleep = {}, {}, [], 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address): pass # whoever asked has gone

hub,home = Hub(), Path(tempfile.mkdtemp())
# Libraries read these when they are imported.
os.environ |= dict(HF_ENDPOINT=hub.address, HF_HOME=str(home/'hf'), HF_HUB_OFFLINE='0', HF_TOKEN='hf_loopback', TQDM_DISABLE='1',
                   HF_HUB_DISABLE_PROGRESS_BARS='1', DINOINV_DEVICE='cpu', MPLBACKEND='agg')
import contextlib, io, shlex, shutil, warnings
from functools import partial
from unittest import mock
import torch
from huggingface_hub import HfApi, constants, logging
from PIL import Image
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel
import dinoinv.commands
from dinoinv import DinoinvError, evaluate, load_decoder, load_encoder, save_textures
from dinoinv.core import read_json
from dinoinv.features import DEFAULT
from dinoinv.samples import encoder_of

logging.set_verbosity_error()
REGISTERS = 'facebook/dinov2-with-registers-small'
root = Path(__file__).resolve().parent.parent
SMALL = dict(attention_probs_dropout_prob=0., drop_path_rate=0., hidden_act='gelu', hidden_dropout_prob=0., hidden_size=384,
             image_size=518, initializer_range=.02, layer_norm_eps=1e-6, layerscale_value=1., mlp_ratio=4, num_attention_heads=6,
             num_channels=3, num_hidden_layers=12, patch_size=14, qkv_bias=True, use_swiglu_ffn=False) # as published
PIXELS = dict(crop_size=dict(height=224, width=224), do_center_crop=True, do_convert_rgb=True, do_normalize=True, do_rescale=True,
              do_resize=True, image_mean=[.485,.456,.406], image_processor_type='BitImageProcessor', image_std=[.229,.224,.225],
              resample=3, rescale_factor=1/255, size=dict(shortest_edge=256))

def published(model, config, seed=0, safe=True):
    "The files of a model with random weights, as its makers publish them"
    torch.manual_seed(seed)
    network = model(config)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        weights = (Path(folder)/'model.safetensors').read_bytes()
    if not safe:
        from safetensors.torch import load
        torch.save(load(weights), old := io.BytesIO())
    about = dict(architectures=[model.__name__], model_type=config.model_type, torch_dtype='float32', **SMALL)
    if hasattr(config, 'num_register_tokens'): about |= dict(num_register_tokens=config.num_register_tokens)
    texts = {'config.json': json.dumps(about).encode(), 'preprocessor_config.json': json.dumps(PIXELS).encode()}
    return texts | ({'model.safetensors': weights} if safe else {'pytorch_model.bin': old.getvalue()})

def fill():
    "Put DINOv2-Small on the hub, with registers and without"
    hub.models[DEFAULT] = Model(published(Dinov2Model, Dinov2Config(**SMALL)))
    hub.models[REGISTERS] = Model(published(Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SMALL)))

# ---- what is checked

def readme(heading):
    "The commands of the first block of shell under a heading of the README, each as a list of words"
    block = (root/'README.md').read_text(encoding='utf-8').split(heading)[1].split('```sh\n')[1].split('```')[0]
    lines = (shlex.split(line, comments=True) for line in block.splitlines())
    return [words for words in lines if words and words[0].startswith('dinoinv_')]

def type_in(words, *more):
    "Run a command in this process"
    with contextlib.redirect_stdout(io.StringIO()): getattr(dinoinv.commands, words[0])([*words[1:], *more])

def noted(path):
    "Name and revision of the encoder in a JSON file"
    made_by = read_json(path)['encoder']
    return made_by['name'], made_by['revision']

def refusal(f, *args, **kwargs):
    "What is said, in one line, by whoever refuses"
    try: f(*args, **kwargs)
    except DinoinvError as e:
        assert '\n' not in str(e), e
        return str(e)
    raise AssertionError('it was accepted')

def empty_cache():
    "For a `with`: a cache that holds nothing"
    return mock.patch.object(constants, 'HF_HUB_CACHE', tempfile.mkdtemp(dir=home))

def seconds(f, *args):
    start = time.perf_counter()
    f(*args)
    return time.perf_counter()-start

def commands():
    "the README's commands for one's own photos run as written, and note the commit that was served"
    save_textures('photos', 12, size=112)
    Image.open(next(Path('photos').rglob('*.png'))).convert('RGB').save('my_photo.jpg')
    for words in readme('## Your own photos'): type_in(words, *['--epochs','1']*(words[0] == 'dinoinv_train'))
    served = DEFAULT, hub.models[DEFAULT].sha
    for path in ('pairs/meta.json','run/config.json','run/best/decoder.json','results/summary.json','out/summary.json'):
        assert noted(path) == served, path
    assert Path('gallery.html').exists()

def demo():
    "the README's demo takes DINOv2-Small by itself, at the commit that was served"
    type_in(readme('## Install')[0], '--n', '16', '--epochs', '1')
    assert noted('dinoinv_demo/results/summary.json') == (DEFAULT, hub.models[DEFAULT].sha)

def study():
    "the README's study of DINOv2-Small runs, with its control"
    type_in(readme('What is known of DINOv2 itself')[0], *'--max_photos 8 --epochs 1 --seeds 1 --patch 56 --decoders default --unseen 0'.split())
    assert noted('dinov2_study/pairs/encoder/meta.json') == (DEFAULT, hub.models[DEFAULT].sha)
    assert noted('dinov2_study/pairs/control/meta.json') == (f'untrained:{DEFAULT}', None)

def registers():
    "DINOv2-Small with registers is loaded by its name"
    enc = load_encoder(REGISTERS)
    assert (enc.revision, enc.dim) == (hub.models[REGISTERS].sha, 384)
    assert enc.encode(torch.zeros(3,56,84)).shape == (1,384,4,6)

def moved_on():
    "a decoder is given the commit that it was trained on when `main` has moved on"
    model,before = hub.models[DEFAULT], hub.models[DEFAULT].sha
    model.commit(published(Dinov2Model, Dinov2Config(**SMALL), seed=1))
    try:
        made_by = read_json('run/best/decoder.json')['encoder']
        assert encoder_of(made_by)[0].revision == before != load_encoder(DEFAULT).revision
        with empty_cache(): assert encoder_of(made_by)[0].weights == made_by['weights']
    finally: model.sha = before

def breaks_off():
    "a download that breaks off is taken up where it broke"
    with empty_cache():
        hub.models[DEFAULT].breaks = 1
        hub.log.clear()
        enc = load_encoder(DEFAULT)
    assert hub.models[DEFAULT].breaks == 0
    assert [range_ for *_,range_ in hub.log if range_] and enc.weights == load_encoder(DEFAULT).weights

def pickled():
    "weights that are published as pytorch_model.bin alone are loaded, too"
    hub.models['old/dinov2'] = Model(published(Dinov2Model, Dinov2Config(**SMALL), safe=False))
    assert load_encoder('old/dinov2').weights == load_encoder(DEFAULT).weights

def gated():
    "a gated model, a token without rights, a missing model, a revision that doesn't exist: a line each, with a remedy"
    files = hub.models[DEFAULT].commits[hub.models[DEFAULT].sha]
    hub.models['closed/gated'],hub.models['closed/rights'] = Model(files), Model(files)
    hub.models['closed/gated'].refusal = 401,'GatedRepo'
    hub.models['closed/rights'].refusal = 403,'Forbidden'
    said = {what: refusal(load_encoder, *args) for what,args in
            dict(gated=['closed/gated'], rights=['closed/rights'], missing=['no/such'], revision=[DEFAULT,'v9']).items()}
    for what,words in dict(gated='gives access on request', rights='403', missing='no model of that name',
                           revision='no such revision').items(): assert words in said[what], said[what]
    assert 'no model of that name' in refusal(dinoinv.prepare_pairs, 'photos', 'no_pairs', 'no/such')
    assert not Path('no_pairs').exists()

def renamed():
    "a model that was renamed is found under its old name"
    hub.moved['facebook/dinov2-tiny'] = DEFAULT
    with empty_cache(): assert load_encoder('facebook/dinov2-tiny').revision == hub.models[DEFAULT].sha

def offline():
    "offline the cache is used, and an empty one is an error at once; `auto` is then mini, with a notice"
    with mock.patch.object(constants, 'HF_HUB_OFFLINE', True):
        hub.log.clear()
        assert load_encoder(DEFAULT).revision == hub.models[DEFAULT].sha and not hub.log
        with empty_cache(), warnings.catch_warnings(record=True) as said:
            assert seconds(refusal, load_encoder, DEFAULT) < 1
            warnings.simplefilter('always')
            assert load_encoder('auto').name == 'mini' and "This is 'mini'" in str(said[-1].message)

def down():
    "a hub that is down, or doesn't answer, costs two seconds where there is a cache"
    usual = seconds(load_encoder, DEFAULT)
    hub.asleep = 60
    silent = seconds(load_encoder, DEFAULT) - usual
    hub.asleep = 0
    hub.shutdown()
    hub.server_close()
    try: refused = seconds(load_encoder, DEFAULT) - usual
    finally:
        again = Hub(hub.server_port)
        again.models,again.moved,again.log = hub.models, hub.moved, hub.log
    assert silent < 3 and refused < 2, (silent, refused)

def decoders():
    "decoders go up and come back: by `push_to_hub`, and a whole folder, probes and notes with it"
    decoder,_ = load_decoder('run/best')
    features = torch.randn(1, 384, 4, 4)
    decoder.push_to_hub('me/decoder')
    assert load_decoder('me/decoder')[0](features).equal(decoder(features))
    HfApi().create_repo('me/whole')
    HfApi().upload_folder(repo_id='me/whole', folder_path='run/best')
    type_in(['dinoinv_infer','me/whole','pairs','from_hub'])
    assert read_json('from_hub/summary.json')['psnr'] == read_json('results/summary.json')['psnr']
    assert 'not to be had from the hub' in refusal(load_decoder, 'me/nothing')

def page():
    "the page about DINOv2 itself runs as it is, on a fraction of its textures"
    cells = json.loads((root/'nbs/howto/dinov2.ipynb').read_text(encoding='utf-8'))['cells']
    few = partial(dinoinv.make_demo, n=16, epochs=1)
    whole = dinoinv.sample_textures
    def small(n, seed, size): return whole(n//8, seed, 56)
    of_few = mock.patch('dinoinv.scores.MIN_GROUPS', 1) # intervals, too
    with of_few, mock.patch('dinoinv.make_demo', few), mock.patch('dinoinv.sample_textures', small):
        scope = {}
        for cell in cells:
            source = ''.join(cell['source'])
            if cell['cell_type'] == 'code' and '#| notest' not in source: exec(source, scope) # one installs in Colab
    assert scope['summaries'][DEFAULT]['encoder']['revision'] == hub.models[DEFAULT].sha

CHECKS = [commands, demo, study, registers, moved_on, breaks_off, pickled, gated, renamed, offline, down, decoders, page]

def check(names):
    "Run checks; say how each went, and return how many failed"
    os.chdir(home)
    failed = 0
    short = partial(dinoinv.ScaledProbe.fit, rounds=1, steps=40)
    for f in CHECKS:
        if names and f.__name__ not in names: continue
        start = time.process_time()
        try:
            with mock.patch.object(dinoinv.ScaledProbe, 'fit', short): f()
        except (Exception, SystemExit) as e:
            failed += 1
            print(f'FAILED: {f.__doc__}: {type(e).__name__}: {e}', flush=True)
            if '--debug' in sys.argv: raise
        else: print(f'passed: {f.__doc__} ({time.process_time()-start:.0f} s CPU)', flush=True)
    return failed

if __name__ == '__main__':
    what,*names = [o for o in sys.argv[1:] if o != '--debug'] or ['serve']
    fill()
    try:
        if what == 'check': sys.exit(bool(check(names)))
        print(f'HF_ENDPOINT={hub.address} HF_HOME=$(mktemp -d) dinoinv_demo # for example')
        threading.Event().wait()
    except KeyboardInterrupt: pass
    finally: shutil.rmtree(home)
