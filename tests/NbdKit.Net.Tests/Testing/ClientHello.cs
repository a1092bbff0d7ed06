namespace NbdKit.Tests.Testing;

/// <summary>The first message of a TLS handshake, as clients send it that no library here would be.</summary>
internal static class ClientHello
{
    private const ushort Tls12 = 0x0303;

    /// <summary>Of SSL 2: a record of its own form.</summary>
    public static byte[] Ssl2 { get; } = [0x80, 28, 1, 0, 2, 0, 3, 0, 0, 0, 16, 7, 0, 0xc0, .. Enumerable.Repeat((byte)7, 16)];

    /// <summary>Of SSL 3, TLS 1.0 or TLS 1.1: 0x300 to 0x302.</summary>
    public static byte[] Old(int version) => Of((ushort)version, [0xc00a, 0x002f]);

    /// <summary>With cipher suites that nobody has: RC4, or one that does not exist.</summary>
    public static byte[] NoCommonCipher(bool is13)
        => is13 ? Of(Tls12, [0x13ff], Version13, Groups, Signatures) : Of(Tls12, [0x0005], Groups, Signatures);

    /// <summary>Of a client that has a key that both sides know, and takes no certificate.</summary>
    public static byte[] OnlyPresharedKey(bool is13)
        => is13
            ? Of(
                Tls12,
                [0x1301],
                Version13,
                // Exchange by the key alone; then one identity of 4 bytes and its binder of 32, last as the rules have it.
                Extension(45, [1, 0]),
                Extension(41, [0, 10, 0, 4, .. "user"u8, 0, 0, 0, 0, 0, 33, 32, .. Enumerable.Repeat((byte)7, 32)]))
            : Of(Tls12, [0x00a8, 0x008c], Groups, Signatures);

    private static byte[] Version13 => Extension(43, [2, 3, 4]);

    private static byte[] Groups => Extension(10, [0, 4, 0, 29, 0, 23]);

    private static byte[] Signatures => Extension(13, [0, 6, 4, 3, 8, 4, 4, 1]);

    private static byte[] Extension(int type, byte[] data)
        => new WireBytes().U16((ushort)type).U16((ushort)data.Length).Raw(data).ToArray();

    // record: type 8, version 16, length 16; message: type 8, length 24; version 16, random 256, session, suites, compression, extensions
    private static byte[] Of(ushort version, ushort[] suites, params byte[][] extensions)
    {
        byte[] all = [.. extensions.SelectMany(extension => extension)];
        WireBytes body = new WireBytes().U16(version).Raw([.. Enumerable.Repeat((byte)7, 32), 0]).U16((ushort)(2 * suites.Length));
        foreach (ushort suite in suites)
        {
            body.U16(suite);
        }
        body.Raw([1, 0]);
        byte[] message = all.Length == 0 ? body.ToArray() : body.U16((ushort)all.Length).Raw(all).ToArray();
        return
        [
            22, 3, (byte)Math.Min(1, version & 0xff), (byte)((message.Length + 4) >> 8), (byte)(message.Length + 4),
            1, 0, (byte)(message.Length >> 8), (byte)message.Length, .. message,
        ];
    }
}
