namespace NbdKit.Tool.Info;

/// <summary>An export, and what the server says about it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Description">What it is, or null.</param>
/// <param name="Uri">Where it is.</param>
/// <param name="Info">What it can do; null if the server does not say so of an export that it lists.</param>
/// <param name="Contexts">Its meta contexts.</param>
internal sealed record InfoExport(
    string Name, string? Description, NbdUri Uri, NbdExportInfo? Info, IReadOnlyList<string> Contexts)
{
    /// <summary>What an export is and can do, by the names that scripts know, in their order.</summary>
    public static IEnumerable<(string Name, bool Value)> Abilities(NbdExportInfo info) =>
    [
        ("is_rotational", info.IsRotational),
        ("is_read_only", !info.CanWrite),
        ("can_cache", info.CanCache != Support.None),
        ("can_df", info.CanDf),
        ("can_fast_zero", info.CanFastZero),
        ("can_flush", info.CanFlush),
        ("can_fua", info.CanFua != Support.None),
        ("can_multi_conn", info.CanMultiConn),
        ("can_trim", info.CanTrim),
        ("can_zero", info.CanZero != Support.None),
    ];

    /// <summary>The block sizes, by the names that scripts know; none if nothing is known.</summary>
    public static IEnumerable<(string Name, long Value)> BlockSizes(NbdExportInfo info) => info.BlockSize.IsKnown
        ?
        [
            ("block_size_minimum", info.BlockSize.Minimum), ("block_size_preferred", info.BlockSize.Preferred),
            ("block_size_maximum", info.BlockSize.Maximum),
        ]
        : [];

    /// <summary>A number of bytes in the largest unit of which it is a multiple.</summary>
    public static string HumanSize(long size)
    {
        const string Units = "KMGTPE";
        int unit = -1;
        while (size != 0 && (size & 1023) == 0)
        {
            size >>= 10;
            unit++;
        }
        return unit < 0 ? $"{size}" : $"{size}{Units[unit]}";
    }
}
