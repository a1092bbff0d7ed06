namespace NbdKit;

/// <summary>The parameters behind the question mark, and what they do to the options of a client.</summary>
public sealed partial record NbdUri
{
    /// <summary>What the options become for a client that connects by this URI.</summary>
    internal NbdClientOptions Apply(NbdClientOptions options)
    {
        NbdClientOptions result = options with
        {
            ExportName = ExportName,
            Tls = IsTls ? NbdTlsPolicy.Require : options.Tls,
        };
        if (TlsHostName is null && TlsVerifyPeer && TlsCertificates is null)
        {
            return result;
        }
        return result with { TlsAuthentication = Client.ClientTls.With(options.TlsAuthentication, this) };
    }

    private sealed record Parameters
    {
        public string? Socket { get; init; }

        public string? TlsHostName { get; init; }

        public bool TlsVerifyPeer { get; init; } = true;

        public string? TlsCertificates { get; init; }

        public static Parameters Read(string query, bool allowLocalFiles, bool isUnix)
        {
            var parameters = new Parameters();
            var seen = new HashSet<string>();
            foreach (string part in query.Split('&', StringSplitOptions.RemoveEmptyEntries))
            {
                string text = part;
                string? escaped = Split(ref text, '=');
                string name = Unescape(text, "parameter");
                string value = Unescape(escaped ?? throw Wrong($"has the parameter {Shown(name)} without a value"), Shown(name));
                if (!seen.Add(name))
                {
                    throw Wrong($"has the parameter {Shown(name)} twice");
                }
                parameters = parameters.With(name, value, allowLocalFiles, isUnix);
            }
            return parameters.Socket is not null || !isUnix ? parameters : throw Wrong("lacks the parameter socket");
        }

        private Parameters With(string name, string value, bool allowLocalFiles, bool isUnix) => name switch
        {
            "socket" => isUnix ? this with { Socket = value } : throw Wrong("has a socket, but not the scheme for it"),
            "tls-type" => value switch
            {
                "x509" => this,
                "anon" or "psk" => throw Wrong($"asks for TLS of type {value}, which is not supported"),
                _ => throw Wrong("asks for TLS of an unknown type"),
            },
            "tls-hostname" => value.Length > 0 ? this with { TlsHostName = value } : throw Wrong("has an empty tls-hostname"),
            "tls-verify-peer" => value switch
            {
                "1" or "true" => this,
                "0" or "false" => this with { TlsVerifyPeer = false },
                _ => throw Wrong("has a tls-verify-peer that is neither 0 nor 1"),
            },
            "tls-certificates" => allowLocalFiles
                ? this with { TlsCertificates = value }
                : throw Wrong("names local files in tls-certificates, which was not allowed"),
            "tls-psk-file" => throw Wrong("asks for pre-shared keys in tls-psk-file, which are not supported"),
            _ => throw Wrong($"has the parameter {Shown(name)}, which is unknown"),
        };

        // Not more of a URI than a person can read, and nothing of it that is not text.
        private static string Shown(string name) => Server.LogText.Clean(name);
    }
}
