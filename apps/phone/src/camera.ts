// The phone's camera. Frames go to the model and nowhere else.

import type { TextKey } from "./texts.ts";

/** The camera cannot be had; the key says why. */
export class CameraError extends Error {
  constructor(readonly key: TextKey, options?: ErrorOptions) {
    super(key, options);
    this.name = "CameraError";
  }
}

/** Whether this address may use the camera at all. */
export const mayUseCamera = (): boolean => Boolean(navigator.mediaDevices?.getUserMedia);

/** The back camera's stream in a video that plays. Throws a CameraError. */
export async function openCamera(video: HTMLVideoElement): Promise<MediaStream> {
  if (!mayUseCamera()) throw new CameraError("camera.insecure");
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 720 } },
    });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    const key =
      name === "NotFoundError" || name === "OverconstrainedError"
        ? "camera.missing"
        : name === "NotReadableError"
          ? "camera.busy"
          : "camera.denied";
    throw new CameraError(key, { cause: error });
  }
  video.srcObject = stream;
  await video.play();
  return stream;
}

export function closeCamera(stream: MediaStream, video: HTMLVideoElement): void {
  for (const track of stream.getTracks()) track.stop();
  video.srcObject = null;
}

/** Resolves when the camera has a frame that was not there before. */
export function nextFrame(video: HTMLVideoElement): Promise<void> {
  return new Promise((resolve) => {
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(() => resolve());
    else requestAnimationFrame(() => resolve());
  });
}

/** The frame that is on screen now. */
export function grab(video: HTMLVideoElement): Promise<ImageBitmap> {
  return createImageBitmap(video, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}
