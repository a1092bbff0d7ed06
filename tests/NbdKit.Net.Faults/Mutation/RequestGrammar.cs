using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>The grammar of what a client sends: flags, options, requests, and no byte that is none of these.</summary>
internal static class RequestGrammar
{
    public static void Check(byte[] sent)
    {
        if (sent.Length == 0)
        {
            return;
        }
        var cursor = new Cursor(sent);
        MutationException.Require((cursor.U32() & ~3u) == 0, "client flags");
        while (!cursor.IsAtEnd)
        {
            uint magic = cursor.U32();
            switch (magic)
            {
                case (uint)(Magic.IHaveOpt >> 32):
                    MutationException.Require(cursor.U32() == unchecked((uint)Magic.IHaveOpt), "the magic of an option");
                    cursor.U32();
                    cursor.Take(cursor.U32());
                    break;
                case Magic.Request or Magic.ExtendedRequest:
                    bool extended = magic == Magic.ExtendedRequest;
                    ushort flags = cursor.U16();
                    ushort type = cursor.U16();
                    cursor.Take(16);
                    ulong length = extended ? cursor.U64() : cursor.U32();
                    MutationException.Require(type <= Cmd.BlockStatus, $"command {type}");
                    bool flagged = (flags & CmdFlag.PayloadLength) != 0;
                    MutationException.Require(!extended || type != Cmd.Write || flagged, "a write without its flag");
                    cursor.Take(type == Cmd.Write || flagged ? (long)length : 0);
                    break;
                default:
                    throw new MutationException($"nothing that a client sends begins with {magic:x}");
            }
        }
    }
}
