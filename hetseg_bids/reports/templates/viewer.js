// T1w + labels + flip map in NiiVue, unpacked from this page: no network, no other file.
{
  const status = document.getElementById("viewer-status");
  const place = document.getElementById("viewer-place");
  const packed = (id) => document.getElementById(id)?.textContent ?? null;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const start = async () => {
    const unzip = new Blob([bytes(packed("niivue-library"))]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unzip).text();
    document.head.append(script);
    const { Niivue, NVImage, SLICE_TYPE } = globalThis.niivue;
    const viewer = new Niivue({ backColor: [0, 0, 0, 1], isRadiologicalConvention: true, show3Dcrosshair: true, dragAndDropEnabled: false, isOrientationTextVisible: true });
    await viewer.attachToCanvas(document.getElementById("viewer"));
    const add = async (id, options) => {
      if (packed(id) === null) return null;
      const image = await NVImage.loadFromBase64({ base64: packed(id), name: `${id}.nii.gz`, ...options });
      viewer.addVolume(image);
      return image;
    };
    await add("viewer-t1w", { colormap: "gray", cal_min: 0, cal_max: 255 });
    const labels = await add("viewer-dseg", { opacity: 0.4 });
    const colors = JSON.parse(packed("viewer-colors"));
    labels.setColormapLabel(colors);
    const flip = await add("viewer-flip", { colormap: "inferno", cal_min: 15, cal_max: 255, opacity: 0 });
    viewer.setSliceType(SLICE_TYPE.MULTIPLANAR);
    viewer.setInterpolation(true);
    viewer.updateGLVolume();
    viewer.onLocationChange = ({ values }) => {
      const label = colors.labels[Math.round(values[1]?.value ?? 0)] || "background";
      const q = flip ? `, flip probability ${((values[2].value / 255) * 0.5).toFixed(2)}` : "";
      place.textContent = `${values[0].mm.slice(0, 3).map((x) => x.toFixed(0)).join(", ")} mm: ${label}${q}`;
    };
    const slider = (id, image) => {
      const input = document.getElementById(id);
      input?.addEventListener("input", () => {
        viewer.setOpacity(viewer.volumes.indexOf(image), Number(input.value));
      });
    };
    slider("opacity-dseg", labels);
    slider("opacity-flip", flip);
    document.getElementById("viewer").addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] }[event.key];
      if (!step) return;
      event.preventDefault();
      viewer.moveCrosshairInVox(...step);
    });
    status.textContent = "";
    document.body.dataset.viewer = "ready";
  };
  const button = document.getElementById("viewer-start");
  button.addEventListener("click", () => {
    button.disabled = true;
    document.getElementById("viewer-frame").classList.add("started");
    status.textContent = "Loading…";
    start().catch((error) => {
      status.textContent = `The viewer can't run in this browser: ${error.message}`;
      document.body.dataset.viewer = "failed";
    });
  });
}
