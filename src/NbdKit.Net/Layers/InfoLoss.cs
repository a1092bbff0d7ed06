namespace NbdKit.Layers;

/// <summary>Whether a chain can serve a client that was told what another one can do.</summary>
internal static class InfoLoss
{
    /// <summary>The first promise that would be broken, or null.</summary>
    /// <param name="told">What the client was told.</param>
    /// <param name="offered">What the other chain offers.</param>
    /// <remarks>
    /// What is only a hint (cache), has a safe answer for a layer that does not know (extents), or may be declined at any
    /// time (fast zero) is no promise.
    /// </remarks>
    public static string? Find(NbdExportInfo told, NbdExportInfo offered)
    {
        if (offered.Size < told.Size)
        {
            return $"its size is {offered.Size} bytes, less than the {told.Size} that the client was told";
        }
        string? lost =
            told.CanWrite && !offered.CanWrite ? "writes"
            : (told.CanFlush || told.CanFua == Support.Emulate) && !CanFlush(offered) ? "flushes"
            : told.CanTrim && !offered.CanTrim ? "trims"
            : told.CanZero == Support.Native && offered.CanZero == Support.None ? "zeroes"
            : told.CanFua == Support.Native && offered.CanFua == Support.None ? "FUA"
            : told.CanMultiConn && !offered.CanMultiConn ? "use by several connections as one"
            : null;
        if (lost is not null)
        {
            return $"it does not offer {lost}, which the client was told of";
        }
        string? context = told.CanExtents
            ? told.MetaContexts.FirstOrDefault(name => name != ExtentList.BaseAllocation
                && !(offered.CanExtents && offered.MetaContexts.Contains(name)))
            : null;
        return context is null
            ? FindBlockSizeLoss(told.BlockSize, offered.BlockSize)
            : $"it has no meta context {context}, which the client was told of";
    }

    private static bool CanFlush(NbdExportInfo info) => info.CanFlush || info.CanFua == Support.Emulate;

    private static string? FindBlockSizeLoss(BlockSize told, BlockSize offered)
    {
        if (offered.Minimum > Math.Max(1, told.Minimum))
        {
            return $"its minimum block size is {offered.Minimum} bytes, more than the client was told";
        }
        bool limited = offered.Maximum is > 0 and < BlockSize.Unlimited;
        return limited && (told.Maximum == 0 || told.Maximum > offered.Maximum)
            ? $"its maximum block size is {offered.Maximum} bytes, less than the client was told"
            : null;
    }
}
