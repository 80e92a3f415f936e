import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import { Button } from "../../parts/Button.tsx";
import { Mistake } from "../../parts/Field.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { newIdea as newIdeaWords } from "../../words/new-idea.ts";
import { FEATURES_MAX } from "./brief.ts";
import { featureField, moved, nextKey } from "./draft.ts";
import type { StepProps } from "./IdeaStep.tsx";
import style from "./NewIdea.module.css";

const text = newIdeaWords.idea;

interface Props extends Pick<StepProps, "update" | "mistakes"> {
  features: StepProps["draft"]["features"];
}

/** The features: a row each, added, removed and moved by buttons and keys. */
export function FeatureList({ features, update, mistakes }: Props) {
  const [said, setSaid] = useState("");
  const toFocus = useRef<number>(undefined);
  const listRef = useRef<HTMLOListElement>(null);

  // After a row was added, moved or removed, the focus stays with the row that the person works on.
  useEffect(() => {
    if (toFocus.current === undefined) return;
    const row = features.find((each) => each.key === toFocus.current);
    toFocus.current = undefined;
    if (row !== undefined) focus(listRef.current, row.key);
  }, [features]);

  function add(after = features.length - 1) {
    if (features.length >= FEATURES_MAX) return;
    const key = nextKey(features);
    toFocus.current = key;
    update((before) => ({ ...before, features: before.features.toSpliced(after + 1, 0, { key, text: "" }) }));
  }

  function remove(index: number) {
    toFocus.current = (features[index + 1] ?? features[index - 1])?.key;
    update((before) => ({ ...before, features: before.features.toSpliced(index, 1) }));
  }

  function move(index: number, by: number) {
    const next = moved(features, index, by);
    if (next === features) return;
    update({ features: next });
    setSaid(text.movedTo(index + by + 1, features.length));
  }

  function onKeyDown(event: KeyboardEvent, index: number) {
    if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      toFocus.current = features[index]?.key;
      move(index, event.key === "ArrowUp" ? -1 : 1);
    } else if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault();
      add(index);
    }
  }

  return (
    <fieldset className={style.features}>
      <legend>{text.features}</legend>
      <p className={style.quiet}>{text.featuresHint}</p>
      {mistakes["brief.features"] !== undefined && (
        <div data-field="brief.features" tabIndex={-1}>
          <Mistake>{mistakes["brief.features"]}</Mistake>
        </div>
      )}
      <ol ref={listRef} className={style.list}>
        {features.map((feature, index) => {
          const name = featureField(feature.key);
          const mistake = mistakes[name];
          const mistakeId = `feature-${feature.key}-mistake`;
          return (
            <li key={feature.key}>
              <div className={style.feature}>
                <span aria-hidden className={style.number}>
                  {index + 1}
                </span>
                <textarea
                  rows={1}
                  value={feature.text}
                  data-field={name}
                  aria-label={text.feature(index + 1)}
                  aria-invalid={mistake !== undefined || undefined}
                  aria-describedby={mistake === undefined ? undefined : mistakeId}
                  autoComplete="off"
                  onKeyDown={(event) => onKeyDown(event, index)}
                  onChange={(event) => {
                    const value = event.target.value;
                    update((before) => ({
                      ...before,
                      features: before.features.map((each) =>
                        each.key === feature.key ? { ...each, text: value } : each,
                      ),
                    }));
                  }}
                />
                <span className={style.tools}>
                  <Button
                    kind="quiet"
                    aria-label={text.up(index + 1)}
                    aria-disabled={index === 0}
                    onClick={() => move(index, -1)}
                  >
                    <Icon name="arrowUp" />
                  </Button>
                  <Button
                    kind="quiet"
                    aria-label={text.down(index + 1)}
                    aria-disabled={index === features.length - 1}
                    onClick={() => move(index, 1)}
                  >
                    <Icon name="arrowDown" />
                  </Button>
                  <Button
                    kind="quiet"
                    aria-label={text.removeFeature(index + 1)}
                    aria-disabled={features.length === 1}
                    onClick={() => features.length > 1 && remove(index)}
                  >
                    <Icon name="cross" />
                  </Button>
                </span>
              </div>
              {mistake !== undefined && <Mistake id={mistakeId}>{mistake}</Mistake>}
            </li>
          );
        })}
      </ol>
      <div>
        <Button small aria-disabled={features.length >= FEATURES_MAX} onClick={() => add()}>
          <Icon name="plus" /> {text.addFeature}
        </Button>
      </div>
      <p role="status" className="visually-hidden">
        {said}
      </p>
    </fieldset>
  );
}

function focus(list: HTMLOListElement | null, key: number) {
  list?.querySelector<HTMLElement>(`[data-field="${featureField(key)}"]`)?.focus();
}
