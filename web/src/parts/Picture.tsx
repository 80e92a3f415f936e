import { useState } from "react";
import { Icon } from "./Icon.tsx";
import style from "./Picture.module.css";

interface Props {
  /** The picture's path in the API; without one, a sign in its place. */
  path: string | null | undefined;
  alt: string;
  className?: string | undefined;
}

/** A screenshot as a poster. One that is not there any more leaves a sign in its place. */
export function Picture({ path, alt, className }: Props) {
  const [missing, setMissing] = useState<string>();
  // Only pictures of the API's own origin.
  const isShown = path?.startsWith("/v1/") === true && missing !== path;
  return (
    <div className={`${style.picture} ${className ?? ""}`}>
      {isShown ? (
        <img src={path} alt={alt} loading="lazy" decoding="async" onError={() => setMissing(path)} />
      ) : (
        <Icon name="camera" size={24} />
      )}
    </div>
  );
}
