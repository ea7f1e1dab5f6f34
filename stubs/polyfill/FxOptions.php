<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** The options of the fx functions. All take the same array; those that answer no amount round none. */
final class FxOptions extends Options
{
    private const KNOWN = ['fetch', 'sheet', 'max_age_s', 'rounding'];

    /** @var callable|null */
    public readonly mixed $fetch;
    private readonly string $sheet;
    public readonly ?int $maxAge;
    public readonly bool $halfUp;

    /**
     * @param array<array-key, mixed> $given
     * @param callable|null $parameter `$fetch`, where the function has it
     */
    public function __construct(array $given, int $position, ?callable $parameter = null)
    {
        parent::__construct($given, $position, self::KNOWN);
        // First: an autoloader it runs may change what a reference in the array holds.
        $fetch = $this->callable('fetch');
        $this->sheet = $this->string('sheet') ?? 'default';
        $maxAge = $this->number('max_age_s');
        if ($maxAge !== null && $maxAge < 1) {
            throw $this->refused("option 'max_age_s' is $maxAge, but must be 1 or more seconds");
        }
        $this->maxAge = $maxAge === null ? null : (int) $maxAge;
        $this->halfUp = $this->word('rounding', ['half_even', 'half_up']) === 'half_up';
        if ($fetch !== null && $parameter !== null && $fetch !== $parameter) {
            throw $this->refused("option 'fetch' is another callable than \$fetch; pass one of them");
        }
        $this->fetch = $fetch ?? $parameter;
    }

    /** @throws Refusal */
    public function key(): Key
    {
        return Key::sheet($this->sheet, $this->position);
    }
}
