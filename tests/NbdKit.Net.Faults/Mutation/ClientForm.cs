namespace NbdKit.Faults.Mutation;

/// <summary>What a client asks for, by the variant of a stream; so its server may say other things to it.</summary>
/// <remarks>
/// The lower half is the form: 0 simple replies, 1 structured ones, 2 those with a context, 3 extended headers with a context;
/// 4 structured replies and 5 extended headers with two contexts. The upper half are bits.
/// </remarks>
internal sealed record ClientForm(byte Variant)
{
    public const int Count = 6;

    private const byte Lists = 0x10;
    private const byte Refuses = 0x20;
    private const byte GivesUp = 0x40;

    private static readonly string[] Names = [ExtentList.BaseAllocation, MutantPlugin.Context];

    /// <summary>Any one.</summary>
    public static ClientForm Any(Random random)
    {
        int bits = random.Next(4) == 0 ? random.Next(8) << 4 : 0;
        return new ClientForm((byte)(random.Next(Count) | bits));
    }

    public bool IsStructured => Number > 0;

    public bool IsExtended => Number is 3 or 5;

    /// <summary>The contexts that it asks for, and gets: the first has the number 7, the second 8.</summary>
    public IReadOnlyList<string> Contexts => Number switch { < 2 => [], < 4 => Names[..1], _ => Names };

    /// <summary>Whether a block status of one context names it in a payload.</summary>
    public bool FiltersStatus => Number == 5;

    /// <summary>Whether it has contexts listed before it asks for any.</summary>
    public bool ListsContexts => (Variant & Lists) != 0 && IsStructured;

    /// <summary>Whether its server refuses what it asks for first: extended headers, NBD_OPT_GO, or any option at all.</summary>
    public bool IsRefused => (Variant & Refuses) != 0 && !IsExtended;

    /// <summary>Whether it gives up requests before they are answered.</summary>
    public bool IsImpatient => (Variant & GivesUp) != 0;

    private int Number => (Variant & 0xf) % Count;

    public NbdClientOptions Options() => new()
    {
        RequestExtendedHeaders = IsExtended || (IsRefused && IsStructured),
        RequestStructuredReplies = IsStructured,
        RequestListedMetaContexts = ListsContexts,
        MetaContexts = Contexts,
        MaxPayload = 1 << 20,
        // As many as good replies have.
        MaxExtents = 4,
        HandshakeTimeout = Timeout.InfiniteTimeSpan,
    };
}
