using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Client;

/// <summary>Opening an export, and asking about one.</summary>
internal sealed partial class ClientHandshake
{
    // The server decides what it tells; a few types that are not known yet must fit as well.
    private const int MaximumInfos = 64;

    private const int MaximumContexts = 1024;

    // Not every type of information that a server may send unasked is known.
    private const int MaximumInfoBytes = 64 << 10;

    private static readonly InfoType[] Wanted = [InfoType.BlockSize, InfoType.Name, InfoType.Description];

    /// <summary>What the server says about an export (NBD_OPT_INFO).</summary>
    public Task<InfoReplies> InfoAsync(string exportName, CancellationToken cancellationToken)
        => GuardAsync(
            async () =>
            {
                RequireOptions();
                (OptionRefusal? refusal, InfoReplies infos) = await AskAboutAsync(OptionType.Info, exportName)
                    .ConfigureAwait(false);
                return refusal is null ? Complete(infos) : throw refusal.ToException();
            },
            leaveOnRefusal: false,
            cancellationToken);

    private async Task<ClientSession> OpenAsync(string exportName)
    {
        if (!_fixedNewstyle)
        {
            return await OpenByNameAsync(exportName, []).ConfigureAwait(false);
        }
        Dictionary<uint, string> contexts = await SetMetaContextsAsync(exportName).ConfigureAwait(false);
        (OptionRefusal? refusal, InfoReplies infos) = await AskAboutAsync(OptionType.Go, exportName).ConfigureAwait(false);
        if (refusal is not null)
        {
            // NBD_OPT_EXPORT_NAME has no way to fail other than by closing, and does not exist for what is newer than NBD_OPT_GO.
            bool older = refusal.Type == OptionReplyType.ErrUnsup && !ExtendedHeaders && !_isTls;
            return older ? await OpenByNameAsync(exportName, contexts).ConfigureAwait(false) : throw refusal.ToException();
        }
        _haggling = false;
        return Session(exportName, Complete(infos), contexts);
    }

    private async Task<(OptionRefusal? Refusal, InfoReplies Infos)> AskAboutAsync(OptionType option, string exportName)
    {
        var infos = new InfoReplies();
        OptionRefusal? refusal = await AskAsync(
            option,
            InfoRequest.Payload(exportName, Wanted),
            OptionReplyType.Info,
            MaximumInfoBytes,
            MaximumInfos,
            content => infos.Add(content)).ConfigureAwait(false);
        return (refusal, infos);
    }

    // NBD_OPT_EXPORT_NAME: size 64, transmission flags 16, then 124 bytes of zeroes unless both sides do without.
    private async Task<ClientSession> OpenByNameAsync(string exportName, Dictionary<uint, string> contexts)
    {
        _haggling = false;
        await SendAsync(OptionHeader.Message(OptionType.ExportName, WireString.Encode(exportName))).ConfigureAwait(false);
        byte[] reply = new byte[_noZeroes ? 10 : 134];
        try
        {
            await ReadAsync(reply.AsMemory(0, 1)).ConfigureAwait(false);
        }
        catch (Exception e) when (!_token.IsCancellationRequested && (e is NbdClientException || IsTransportFault(e)))
        {
            throw new NbdClientException(
                NbdClientError.ExportUnknown, "the server closed the connection: it has no such export, or does not open it", e);
        }
        // A server that has begun to answer opens the export: what breaks off now is the connection.
        await ReadAsync(reply.AsMemory(1)).ConfigureAwait(false);
        var infos = new InfoReplies();
        infos.Add(BinaryPrimitives.ReadUInt64BigEndian(reply), (TransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(reply.AsSpan(8)));
        return Session(exportName, Complete(infos), contexts);
    }

    private ClientSession Session(string exportName, InfoReplies infos, Dictionary<uint, string> contexts)
    {
        ClientLog.ExportOpened(_logger, exportName, infos.Size!.Value, infos.Flags.ToString());
        return new ClientSession(
            _transport,
            exportName,
            (long)infos.Size.Value,
            infos.Flags,
            infos.BlockSize,
            infos.Description,
            infos.CanonicalName,
            StructuredReplies,
            ExtendedHeaders,
            contexts,
            _isTls);
    }

    private static InfoReplies Complete(InfoReplies infos) => infos.Size switch
    {
        null => throw Violation("the server opened the export without saying how large it is"),
        > long.MaxValue => throw new NbdClientException(
            NbdClientError.Unsupported, $"the export has {infos.Size} bytes; 2^63-1 are supported"),
        _ => infos,
    };
}
