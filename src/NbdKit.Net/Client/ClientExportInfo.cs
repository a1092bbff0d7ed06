using NbdKit.Protocol;

namespace NbdKit.Client;

/// <summary>What a server says about an export, as a layer would say it.</summary>
internal static class ClientExportInfo
{
    /// <summary>From what was answered to NBD_OPT_INFO.</summary>
    public static NbdExportInfo From(InfoReplies infos, IReadOnlyList<string> metaContexts)
        => From((long)infos.Size!.Value, infos.Flags, infos.BlockSize, metaContexts) with
        {
            Description = infos.Description,
            CanonicalName = infos.CanonicalName,
        };

    /// <summary>From what an export was opened with.</summary>
    public static NbdExportInfo From(ClientSession session)
        => From(session.Size, session.Flags, session.BlockSize, [.. session.MetaContexts.Values]) with
        {
            Description = session.Description,
            CanonicalName = session.CanonicalName,
        };

    private static NbdExportInfo From(
        long size, TransmissionFlags flags, BlockSize blockSize, IReadOnlyList<string> metaContexts)
    {
        // A server that forgets this bit has none of the others either.
        flags = Has(TransmissionFlags.HasFlags) ? flags : TransmissionFlags.None;
        bool canWrite = !Has(TransmissionFlags.ReadOnly);
        return new NbdExportInfo
        {
            Size = size,
            BlockSize = blockSize,
            CanWrite = canWrite,
            CanFlush = Has(TransmissionFlags.SendFlush),
            CanTrim = canWrite && Has(TransmissionFlags.SendTrim),
            IsRotational = Has(TransmissionFlags.Rotational),
            CanZero = Level(canWrite && Has(TransmissionFlags.SendWriteZeroes)),
            CanFastZero = canWrite && Has(TransmissionFlags.SendWriteZeroes) && Has(TransmissionFlags.SendFastZero),
            CanFua = Level(canWrite && Has(TransmissionFlags.SendFua)),
            CanCache = Level(Has(TransmissionFlags.SendCache)),
            CanMultiConn = Has(TransmissionFlags.CanMultiConn),
            CanDf = Has(TransmissionFlags.SendDf),
            CanExtents = metaContexts.Contains(ExtentList.BaseAllocation),
            // What a server calls its contexts is its own affair, but a layer's obey the rules.
            MetaContexts = [.. metaContexts.Where(MetaContextName.HasNamespace).Distinct()],
        };

        bool Has(TransmissionFlags flag) => (flags & flag) != 0;
    }

    private static Support Level(bool has) => has ? Support.Native : Support.None;
}
