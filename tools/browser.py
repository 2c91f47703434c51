"""Drive the reconstructions' browsers as a person would, in Chromium: on the built site, in JupyterLab, and on a page of its own.

    python tools/browser.py gallery SITE [--shots DIR]   the gallery of the site in SITE: desktop and phone, light and dark
    python tools/browser.py lab [--shots DIR]            the widget, saved galleries, and a thousand samples in a JupyterLab of its own

Both fail with the first thing that doesn't do what it should, and leave screenshots in DIR.
"""
import argparse, functools, json, os, secrets, shutil, socket, subprocess, sys, tempfile, threading, time, urllib.request
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
from playwright.sync_api import Error, sync_playwright

FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()

@contextmanager
def chromium():
    exe = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
    if not exe: sys.exit('no Chromium: apt-get install chromium')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=FLAGS)
        try: yield browser
        finally: browser.close()

@contextmanager
def serving(folder):
    "`folder` at a local address"
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    srv = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}'
    finally: srv.shutdown()

def check(ok, what):
    if not ok: raise AssertionError(what)

def until(f, what, wait=15):
    "Wait for `f()` to be true"
    end = time.monotonic()+wait
    while not (r := f()):
        check(time.monotonic() < end, what); time.sleep(.1)
    return r

def changes(look, act, what, wait=15):
    "`act` must change what `look` sees"
    before = look(); act()
    return until(lambda: look()!=before, f'{what}: nothing changed', wait)

# ---- the gallery: the same script on a page and in a notebook ----

def drive_gallery(page, host, data):
    host.scroll_into_view_if_needed()
    score = lambda s, i: s['scores']['run'][i]
    at = lambda css: host.locator(css)
    button = lambda name: host.get_by_role('button', name=name, exact=True)
    title = lambda: at('.facts h3').inner_text()
    shown = lambda: at('.thumb').evaluate_all('o => o.map(e => e.title)')
    order = lambda f, reverse=False: [s['name'] for s in sorted(data['samples'], key=f, reverse=reverse)]
    tags = lambda: [o.inner_text() for o in at('.tag').all() if o.is_visible()]
    def settled(): until(lambda: at('.stage').get_attribute('aria-busy')=='false', 'the picture did not come')
    def stage(): # once it has settled
        settled()
        a,b = None,at('.stage').screenshot()
        while a!=b: a,b = b,at('.stage').screenshot()
        return b

    settled()
    check(title()==shown()[0]==order(lambda s: score(s, 0))[0], 'it should open with the worst PSNR')
    check(data['made'] in at('.made').inner_text(), 'the encoder should be named')
    check(tags()[0]=='target' and 'reconstruction' in tags()[1], f'the pictures should be named: {tags()}')
    check(f"{len(data['samples'])} of {len(data['samples'])} samples" in at('.count').inner_text(), 'how many are shown')
    at('.sort').select_option('ssim'); check(shown()==order(lambda s: score(s, 1)), 'sort by SSIM')
    button('worst first').click(); check(shown()==order(lambda s: score(s, 1), True), 'sort by SSIM, best first')
    at('.sort').select_option('name'); check(shown()==order(lambda s: s['name'], True), 'sort by name, backwards')

    group = data['samples'][-1]['group']
    at('select.group').select_option(group); check(set(shown())=={s['name'] for s in data['samples'] if s['group']==group}, 'filter by texture')
    at('select.group').select_option('')
    name = data['samples'][2]['name']
    at('.find').fill(name); check(shown()==[name]==[title()], 'filter by text'); at('.find').fill('no such')
    check('nothing' in at('.count').inner_text(), 'a filter that nothing fits should say so'); at('.find').fill('')
    at('.sort').select_option('psnr'); button('best first').click()

    names = shown()
    changes(stage, at('.thumb').nth(3).click, 'a click on a thumbnail'); check(title()==names[3], 'a click should open its sample')
    changes(stage, lambda: page.keyboard.press('ArrowRight'), 'arrow key'); check(title()==names[4], 'arrow right: the next sample')
    page.keyboard.press('ArrowLeft'); page.keyboard.press('Home'); check(title()==names[0], 'Home: the first sample')
    at('input.sample').focus(); page.keyboard.press('ArrowRight'); check(title()==names[1], 'the sample slider, by keyboard')
    button('Next sample').click(); check(title()==names[2], 'next'); button('Previous sample').click(); check(title()==names[1], 'previous')
    at('.plot').click(position=dict(x=at('.plot').bounding_box()['width']-1, y=20)); check(title()==names[-1], 'a click at the end of the curve')

    def drag(a, b):
        box = at('.stage').bounding_box()
        p = lambda f: (box['x']+f*box['width'], box['y']+.4*box['height'])
        page.mouse.move(*p(a)); page.mouse.down(); page.mouse.move(*p(b), steps=4); page.mouse.up()
    def away(): at('.what').hover() # the pointer off the picture
    at('.stage').scroll_into_view_if_needed()
    changes(stage, lambda: drag(.5, .9), 'dragging the wipe'); check(abs(float(at('.at input').input_value())-90) < 2, 'the wipe should be where it was dragged')
    at('.at input').focus(); changes(stage, lambda: page.keyboard.press('Home'), 'the wipe by keyboard')
    changes(stage, button('side by side').click, 'side by side')
    a,b = (at(f'.pane.{k}').bounding_box() for k in ('left','right')); check(a['x']+a['width'] <= b['x']+1 and a['width'] > 100, 'two pictures beside each other')
    changes(stage, button('error map').click, 'error map'); check_error_map(host, data)
    changes(stage, button('hover').click, 'hover'); away(); check('reconstruction' in tags()[0], f'away from the picture: {tags()}')
    changes(stage, at('.stage').hover, 'pointing at the picture'); check(tags()==['target'], f'over the picture: {tags()}'); away()
    changes(stage, lambda: page.keyboard.press('Space'), 'hover, by the space bar')
    button('flicker').click(); changes(tags, lambda: None, 'flicker alternates')
    page.keyboard.press('4'); check(button('side by side').get_attribute('aria-pressed')=='true', 'keys choose the view')
    changes(stage, lambda: page.keyboard.press('+'), 'zoom'); button('Zoom in').click()
    changes(stage, lambda: drag(.4, .2), 'panning'); changes(stage, lambda: page.keyboard.press('Shift+ArrowDown'), 'panning by keyboard')
    moves = at('.pane img').evaluate_all('o => o.map(e => getComputedStyle(e).transform)'); check(len(moves)==2 and moves[0].split(',')[0]==moves[1].split(',')[0]!='none', 'both zoom alike')
    page.keyboard.press('0'); button('wipe').click(); at('.at input').focus(); page.keyboard.press('End')
    check(at('.main').evaluate('e => [...e.children].every(o => o.scrollWidth <= o.clientWidth)'), 'something sticks out')
    changes(stage, lambda: at('select.l').select_option('low_pass'), 'a baseline on the left'); check(tags()[0]=='low pass', f'the baseline should be named: {tags()}')
    if 'other' in data['pictures']: changes(stage, lambda: at('select.l').select_option('other'), 'the other run on the left')
    at('select.l').select_option('target')

PIXELS = """async (e, map) => { // mean absolute error of what is shown, from the pictures, and from the colours of its map
    const read = async src => { const i = new Image(); i.src = src; await i.decode()
        const c = Object.assign(document.createElement('canvas'), { width: i.naturalWidth, height: i.naturalHeight })
        c.getContext('2d').drawImage(i, 0, 0); return c.getContext('2d').getImageData(0, 0, c.width, c.height).data }
    const data = await read(e.src), levels = new Map(map.map((c, i) => [parseInt(c, 16), i]))
    let sum = 0
    for (let i = 0; i < data.length; i += 4) sum += (levels.get(data[i] << 16 | data[i+1] << 8 | data[i+2]) + .5)/map.length
    return sum/(data.length/4) }"""

def check_error_map(host, data):
    "The colours of the error map, read back as numbers, must average to the MAE that was measured in Python"
    name = host.locator('.facts h3').inner_text()
    mae = next(s for s in data['samples'] if s['name']==name)['scores']['run'][2]
    read = host.locator('.pane.right img').evaluate(PIXELS, data['colours'])*data['top']
    check(abs(read-mae) < .003+.05*mae, f'the error map of {name} averages to {read:.4f}, its MAE is {mae:.4f}')

def drive_alone(page, url, shots):
    "A gallery with a page of its own: keys without a click, and links to a sample in a view"
    host = page.locator('.dinoinv-gallery')
    title = lambda: host.locator('.facts h3').inner_text()
    ready = lambda: host.locator('.stage[aria-busy=false]').wait_for(timeout=30_000)
    page.goto(url); ready()
    changes(title, lambda: page.keyboard.press('ArrowRight'), 'arrow key before any click')
    address = lambda: page.evaluate('location.href')
    page.keyboard.press('4'); until(lambda: 'view=side' in address(), 'the address should follow')
    name,link = title(),address()
    page.goto('about:blank'); page.goto(link); ready()
    check(title()==name and host.get_by_role('button', name='side by side').get_attribute('aria-pressed')=='true', 'a link should lead back')
    page.screenshot(path=shots/'page.png')

def drive_site(browser, url, shots):
    "On a phone: code unfolds, a picture enlarges and closes, the menu opens, a lost link says so"
    page = browser.new_page(viewport=dict(width=390, height=844))
    page.goto(f'{url}/internals/textures.html')
    code = page.locator('details.code').first
    code.locator('summary').click(); check(code.locator('pre').first.is_visible(), 'the code should unfold')
    page.locator('main img').first.click(); page.locator('dialog.picture img').wait_for()
    page.screenshot(path=shots/'site-picture.png')
    page.keyboard.press('Escape'); check(not page.locator('dialog.picture').count(), 'Escape should close the picture')
    page.evaluate('scrollTo(0, 0)')
    page.locator('.quarto-secondary-nav .quarto-btn-toggle').click()
    page.locator('#quarto-sidebar').get_by_text("3 · Training", exact=True).first.wait_for()
    page.screenshot(path=shots/'site-menu.png')
    page.goto(f'{url}/404.html'); check('no page at this address' in page.locator('main').inner_text(), 'the page for lost links')
    check(page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'the page is wider than the screen')
    page.close()
    print('site, phone: code, pictures, menu, lost links')

def gallery(site, shots):
    site = Path(site)
    pages = [p.relative_to(site).as_posix() for p in site.rglob('*.html') if '<div class="dinoinv-gallery"' in p.read_text()]
    check('internals/gallery.html' in pages, f'no gallery on internals/gallery.html of {site}')
    with serving(site) as url, chromium() as browser:
        drive_site(browser, url, shots)
        for size,width,height in (('desktop',1280,900), ('phone',390,844)):
            for scheme in ('light','dark'):
                page = browser.new_page(viewport=dict(width=width, height=height), color_scheme=scheme)
                errors = []; page.on('pageerror', lambda e: errors.append(str(e)))
                page.goto(f'{url}/internals/gallery.html')
                host = page.locator('.dinoinv-gallery').first
                scheme_of = lambda: host.evaluate('e => e.style.colorScheme')
                try:
                    drive_gallery(page, host, json.loads(host.get_attribute('data-gallery')))
                    check(scheme_of()==scheme, f'{scheme_of()} gallery on a {scheme} page')
                    check(page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'the page is wider than the screen')
                    check(not errors, errors)
                    if size=='desktop': changes(scheme_of, page.locator('.quarto-color-scheme-toggle').first.click, 'the colours of the site were switched')
                except (AssertionError, Error) as e: raise AssertionError(f'gallery, {size}, {scheme}: {e}') from e
                finally: host.screenshot(path=shots/f'gallery-{size}-{scheme}.png')
                page.close()
                print(f'gallery, {size}, {scheme}: sort, filter, open, keys, wipe, views, zoom')

# ---- the widget in JupyterLab ----

def fake_results(folder, blur):
    "Samples as `evaluate` leaves them; the 'decoder' is a blur"
    import numpy as np
    from PIL import Image, ImageFilter
    from dinoinv.core import digest, save_json
    from dinoinv.photos import to_tensor
    from dinoinv.scores import image_metrics
    from dinoinv.textures import sample_textures
    folder.mkdir(parents=True)
    for i,t in enumerate(sample_textures(6, size=196)):
        a,b,c = (np.asarray(o) for o in (t.image, t.image.filter(ImageFilter.GaussianBlur(blur+i/4)), t.image.filter(ImageFilter.GaussianBlur(4))))
        score = lambda o: image_metrics(to_tensor(o)[None], to_tensor(a)[None])[0]
        name = f'{t.family}__{t.name}__0_0'
        info = dict(name=name, group=t.family, height=196, width=196, scores=score(b), baselines=dict(low_pass=score(c)),
            target=digest(a.tobytes()), encoder=dict(name='none, a blur', weights='0'*12, layers=None, fuse='concat', unit=14))
        (folder/name).mkdir()
        for k,pixels in dict(pred=b, target=a).items(): Image.fromarray(pixels).save(folder/name/f'{k}.png')
        save_json(folder/name/'info.json', info)
    save_json(folder/'summary.json', dict(n=6))

def notebook(*cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nb.metadata.kernelspec = dict(name='python3', display_name='python3', language='python')
    return nb

@contextmanager
def jupyter(root):
    "JupyterLab in `root`, with settings of its own"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    token,home = secrets.token_hex(16),root/'.jupyter'
    env = os.environ | {f'JUPYTER_{k}': str(home/k) for k in ('CONFIG_DIR','RUNTIME_DIR','DATA_DIR')} | dict(IPYTHONDIR=str(home/'ipython'))
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}', '--ServerApp.port_retries=0', f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={root}']
    news = home/'CONFIG_DIR/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings' # or it asks
    news.parent.mkdir(parents=True); news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with open(root/'.lab.log', 'w') as log: srv = subprocess.Popen(cmd, env=env, cwd=root, stdout=log, stderr=log)
    def up():
        check(srv.poll() is None, 'JupyterLab stopped: ' + (root/'.lab.log').read_text()[-2000:])
        try: return urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}', timeout=2)
        except OSError: return False
    try:
        until(up, 'JupyterLab did not start', 60)
        yield lambda nb: f'http://127.0.0.1:{port}/lab/workspaces/{Path(nb).stem}/tree/{nb}?token={token}'
    finally: srv.terminate(); srv.wait(20)

def many_results(folder, n):
    "`n` samples that share their pictures"
    with tempfile.TemporaryDirectory() as tmp:
        fake_results(Path(tmp)/'one', 1)
        first = next((Path(tmp)/'one').glob('*/info.json')).parent
        info = json.loads((first/'info.json').read_text())
        for i in range(n):
            (folder/f's{i:04}').mkdir(parents=True)
            for k in ('target.png','pred.png'): shutil.copy(first/k, folder/f's{i:04}'/k)
            info['scores']['psnr'] += .01
            (folder/f's{i:04}/info.json').write_text(json.dumps(info | dict(name=f's{i:04}')))
        (folder/'summary.json').write_text(json.dumps(dict(n=n)))

def drive_many(page, host, shots):
    "A thousand samples: each step must be quick"
    host.locator('.stage[aria-busy=false]').wait_for(timeout=60_000)
    check('1000 of 1000 samples' in host.locator('.count').inner_text(), 'how many are shown')
    took = {}
    for what,act in dict(sort=lambda: host.locator('.sort').select_option('name'), end=lambda: (host.locator('input.sample').focus(), page.keyboard.press('End')),
                         find=lambda: host.locator('.find').fill('s05')).items():
        start = time.monotonic(); act(); host.locator('.stage[aria-busy=false]').wait_for(); took[what] = time.monotonic()-start
    check(max(took.values()) < 3, f'too slow: {took}')
    check('100 of 1000' in host.locator('.count').inner_text(), 'find')
    page.screenshot(path=shots/'lab-many.png')
    return ', '.join(f'{k} {v:.2f} s' for k,v in took.items())

def lab(shots):
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        for k,b in dict(one=1, two=2).items(): fake_results(root/k, b)
        many_results(root/'many', 1000)
        nbformat.write(notebook("from dinoinv.gallery import browse, Gallery\nbrowse('one', 'two')", "browse('many')", "display(Gallery('one', 'two'), Gallery('one'))"), root/'live.ipynb')
        from dinoinv.gallery import Gallery, Runs, data_of
        sent = notebook("Gallery('one')") # as if by somebody else: not trusted here
        sent.cells[0].outputs = [nbformat.v4.new_output('execute_result', {'text/html':Gallery(root/'one')._repr_html_(), 'text/plain':'gallery'}, execution_count=1)]
        nbformat.write(sent, root/'sent.ipynb')
        Gallery(root/'one').save(root/'page.html')
        with jupyter(root) as url, chromium() as browser:
            page = browser.new_page(viewport=dict(width=1280, height=1100))
            try:
                page.goto(url('live.ipynb'))
                page.locator('.jp-Notebook .cm-content').first.click(timeout=60_000)
                page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').first.wait_for(timeout=60_000)
                page.keyboard.press('Shift+Enter')
                runs = Runs(root/'one', root/'two')
                widget = page.locator('.jp-OutputArea-output .dinoinv-gallery').first
                widget.locator('.stage').wait_for(timeout=60_000)
                drive_gallery(page, widget, data_of(runs, runs.samples))
                widget.screenshot(path=shots/'lab-browse.png'); print('JupyterLab: the widget does what its controls say')
                page.locator('.jp-Notebook .cm-content').nth(1).click(); page.keyboard.press('Shift+Enter')
                many = page.locator('.jp-OutputArea-output .dinoinv-gallery').nth(1)
                many.locator('.stage').wait_for(timeout=60_000); many.scroll_into_view_if_needed()
                print('JupyterLab: a thousand samples:', drive_many(page, many, shots))
                page.locator('.jp-Notebook .cm-content').nth(2).click(); page.keyboard.press('Shift+Enter')
                page.locator('.dinoinv-gallery[data-gallery]').nth(1).locator('.stage').wait_for(timeout=60_000) # both have arrived
                page.keyboard.press('Control+s'); until(lambda: (root/'live.ipynb').read_text().count('data-gallery=') >= 2, 'the notebook was not saved')
                page.goto(url('live.ipynb')); host = page.locator('.dinoinv-gallery[data-gallery]').first; host.locator('.stage').wait_for(timeout=60_000)
                title = lambda: host.locator('.facts h3').inner_text()
                host.locator('.thumb').nth(1).click(); changes(title, lambda: page.keyboard.press('ArrowRight'), 'arrow key in a saved gallery')
                check(page.locator('.jp-Notebook .jp-mod-active .dinoinv-gallery').count(), 'the arrow key should stay in the gallery')
                check(page.locator('.dinoinv-gallery[data-gallery]').nth(1).locator('.facts h3').inner_text()!=title(), 'two galleries on a page should not move together')
                page.screenshot(path=shots/'lab-gallery.png'); print('JupyterLab: a saved gallery works')
                page.goto(url('sent.ipynb')); fig = page.locator('.jp-OutputArea-output figure img').first; fig.wait_for(timeout=60_000)
                check(fig.evaluate('e => e.decode().then(() => e.naturalWidth)')>50, 'no picture without trust')
                page.screenshot(path=shots/'lab-untrusted.png'); print('JupyterLab: an untrusted gallery shows its pictures')
                drive_alone(page, (root/'page.html').as_uri(), shots); print('a page of its own: keys without a click, links')
            except (AssertionError, Error) as e:
                page.screenshot(path=shots/'lab-failed.png')
                raise AssertionError(f'JupyterLab: {e}') from e

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest='cmd', required=True)
    sub.add_parser('gallery').add_argument('site')
    sub.add_parser('lab')
    for p in sub.choices.values(): p.add_argument('--shots', type=Path, help='folder for screenshots')
    a = vars(ap.parse_args())
    with tempfile.TemporaryDirectory() as tmp:
        shots = a.pop('shots') or Path(tmp)
        shots.mkdir(parents=True, exist_ok=True)
        try: globals()[a.pop('cmd')](**a, shots=shots)
        except AssertionError as e: sys.exit(f'FAILED: {e}')

if __name__=='__main__': main()
