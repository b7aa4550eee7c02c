"""Flow-matching models of any convention as velocity fields, with guidance and data prediction."""
