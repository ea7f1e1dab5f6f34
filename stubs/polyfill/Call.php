<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * The boundary around every function: what goes wrong in here leaves as if an internal function had
 * thrown it, with the caller's file and line, and without our own frames, in whose arguments a token may be.
 */
final class Call
{
    /**
     * @template T
     * @param \Closure(): T $body
     * @return T
     */
    public static function answer(#[\SensitiveParameter] \Closure $body): mixed
    {
        try {
            return $body();
        } catch (Refusal $refusal) {
            throw self::seenByTheCaller(self::refused($refusal));
        } catch (\SharedState\Exception $thrown) {
            // One of an inner call has left by a boundary of its own already.
            throw \dirname($thrown->getFile()) === __DIR__ ? self::seenByTheCaller($thrown) : $thrown;
        }
    }

    private static function refused(Refusal $refusal): \Error
    {
        $function = self::ours($refusal->getTrace())[0]['function'];
        $parameter = (new \ReflectionFunction($function))->getParameters()[$refusal->position - 1]->getName();
        return new $refusal->class("$function(): Argument #$refusal->position (\$$parameter) $refusal->sentence");
    }

    private static function seenByTheCaller(\Throwable $thrown): \Throwable
    {
        $trace = self::ours($thrown->getTrace());
        // A call by array_map() and its like has no file; the next frame has.
        $place = array_values(array_filter($trace, static fn (array $frame): bool => isset($frame['file'])))[0] ?? [];
        $class = $thrown instanceof \Error ? \Error::class : \Exception::class;
        foreach (['file' => $place['file'] ?? '', 'line' => $place['line'] ?? 0, 'trace' => $trace] as $name => $value) {
            (new \ReflectionProperty($class, $name))->setValue($thrown, $value);
        }
        return $thrown;
    }

    /**
     * @param list<array<string, mixed>> $trace
     * @return non-empty-list<array<string, mixed>> from the function on that was called from outside
     */
    private static function ours(array $trace): array
    {
        foreach ($trace as $index => $frame) {
            if (!isset($frame['class']) && !str_contains($frame['function'], '{closure') && \dirname($frame['file'] ?? '') !== __DIR__) {
                return \array_slice($trace, $index);
            }
        }
        return $trace;
    }
}
