import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, dataOf } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Icon, type IconName } from "../../parts/Icon.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys } from "./data.ts";
import style from "./Fleet.module.css";

const text = words.checksPart;
const LOOKS: Record<string, { icon: IconName; hue: string }> = {
  ok: { icon: "check", hue: "good" },
  warn: { icon: "warning", hue: "warn" },
  fail: { icon: "error", hue: "bad" },
};

/** Checks of the servers, as `cofounder doctor` makes them. Made on request: they take some seconds. */
export function Checks() {
  const [isAsked, setAsked] = useState(false);
  const checks = useQuery({
    queryKey: [...keys.controls, "checks"],
    queryFn: () => dataOf(api.GET("/v1/ops/checks")),
    enabled: isAsked,
    staleTime: Number.POSITIVE_INFINITY,
    refetchOnWindowFocus: false,
    retry: false,
  });
  return (
    <Card id="checks" title={text.title}>
      <p className={style.quiet}>{text.help}</p>
      {checks.isError && <Failure error={checks.error} />}
      {checks.isLoading && <Skeleton lines={5} />}
      <ul className={style.reasons} aria-busy={checks.isFetching}>
        {checks.data?.checks.map((check) => {
          const look = LOOKS[check.state] ?? { icon: "info", hue: "info" };
          return (
            <li key={check.name} className={style[look.hue]}>
              <Icon name={look.icon} label={text.states[check.state] ?? check.state} />
              <div>
                <p>
                  <strong>{printable(check.name)}:</strong> {printable(check.detail)}
                </p>
                {check.remedy !== null && <p className={style.remedy}>{printable(check.remedy)}</p>}
              </div>
            </li>
          );
        })}
      </ul>
      <div>
        <Button busy={checks.isFetching} onClick={() => (isAsked ? void checks.refetch() : setAsked(true))}>
          {isAsked ? text.again : text.run}
        </Button>
      </div>
    </Card>
  );
}
